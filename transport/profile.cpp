// SPDX-License-Identifier: Apache-2.0
#include <cstdlib>

#include <spillway/transport/profile.hpp>
#include <spillway/transport/sts.hpp>
#include <spillway/transport/text.hpp>

namespace spillway::transport {
namespace {

std::string path_from(const char* variable, const char* under_home) {
  if (const char* const path = std::getenv(variable); path != nullptr && *path != '\0') return path;
  const char* const home = std::getenv("HOME");
  return home == nullptr ? std::string() : std::string(home) + under_home;
}

ProfileFile read_file(const std::string& path) {
  const auto text = read_small_file(path);
  return text ? parse_profile_file(*text) : ProfileFile();
}

ProfileFile config_file() { return read_file(path_from("AWS_CONFIG_FILE", "/.aws/config")); }
ProfileFile credentials_file() {
  return read_file(path_from("AWS_SHARED_CREDENTIALS_FILE", "/.aws/credentials"));
}

std::optional<ProfileSection> find(const ProfileFile& file, std::string_view section) {
  const auto found = file.find(section);
  return found == file.end() ? std::nullopt : std::optional(found->second);
}

// A comment begins at the start of a line, or after a blank.
std::string_view without_comment(std::string_view line) {
  for (std::size_t i = 0; i < line.size(); ++i) {
    const bool begins = i == 0 || line[i - 1] == ' ' || line[i - 1] == '\t';
    if (begins && (line[i] == '#' || line[i] == ';')) return line.substr(0, i);
  }
  return line;
}

}  // namespace

std::string ProfileSection::get(std::string_view key) const {
  const auto found = settings.find(key);
  return found == settings.end() ? std::string() : found->second;
}

ProfileFile parse_profile_file(std::string_view text) {
  ProfileFile file;
  ProfileSection* section = nullptr;
  std::string outer;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = without_comment(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
    const std::string_view content = trim(line);
    if (content.empty()) continue;
    if (content.front() == '[') {
      const std::size_t close = content.find(']');
      section = close == std::string_view::npos
                    ? nullptr
                    : &file[std::string(trim(content.substr(1, close - 1)))];
      outer.clear();
      continue;
    }
    const std::size_t equals = content.find('=');
    if (section == nullptr || equals == std::string_view::npos) continue;
    const std::string key = lower(trim(content.substr(0, equals)));
    if (key.empty()) continue;
    const std::string value(trim(content.substr(equals + 1)));
    const bool nested = line.front() == ' ' || line.front() == '\t';
    if (!nested) outer = key;
    section->settings[nested && !outer.empty() ? outer + "." + key : key] = value;
  }
  return file;
}

std::string profile_name() {
  const char* const name = std::getenv("AWS_PROFILE");
  return name == nullptr || *name == '\0' ? "default" : name;
}

std::optional<ProfileSection> load_profile(std::string_view name) {
  const ProfileFile config = config_file();
  auto profile = find(config, "profile " + std::string(name));
  if (!profile && name == "default") profile = find(config, "default");
  if (const auto credentials = find(credentials_file(), name)) {
    if (!profile) profile.emplace();
    for (const auto& [key, value] : credentials->settings) profile->settings[key] = value;
  }
  return profile;
}

std::optional<ProfileSection> load_services(std::string_view name) {
  return find(config_file(), "services " + std::string(name));
}

std::optional<ProfileSection> load_sso_session(std::string_view name) {
  return find(config_file(), "sso-session " + std::string(name));
}

}  // namespace spillway::transport
