// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <utility>

#include <openssl/crypto.h>
#include <simdjson.h>

#include <spillway/transport/credential_documents.hpp>
#include <spillway/transport/text.hpp>

namespace spillway::transport {
namespace {

using std::chrono::system_clock;

/// A parsed document whose texts are overwritten at its end: simdjson keeps copies of them.
class Document {
 public:
  explicit Document(std::string_view text) {
    text_.reserve(text.size() + simdjson::SIMDJSON_PADDING);
    text_.assign(text);
    text_.resize(text.size() + simdjson::SIMDJSON_PADDING);
    ok_ = parser_.parse(text_.data(), text.size(), false).get(root_) == simdjson::SUCCESS &&
          root_.is_object();
  }
  Document(const Document&) = delete;
  Document& operator=(const Document&) = delete;
  ~Document() {
    if (ok_) wipe(root_);
  }

  bool ok() const noexcept { return ok_; }
  simdjson::dom::element root() const noexcept { return root_; }

 private:
  static void wipe(simdjson::dom::element element) noexcept {
    if (simdjson::dom::object object; element.get(object) == simdjson::SUCCESS) {
      for (const auto field : object) wipe(field.value);
    }
    if (std::string_view text; element.get(text) == simdjson::SUCCESS) {
      OPENSSL_cleanse(const_cast<char*>(text.data()), text.size());  // NOLINT: the parser's own
    }
  }

  Secret text_;
  simdjson::dom::parser parser_;
  simdjson::dom::element root_;
  bool ok_ = false;
};

std::string_view text_of(simdjson::dom::element object, std::string_view member) noexcept {
  std::string_view text;
  return object[member].get(text) == simdjson::SUCCESS ? text : std::string_view{};
}

CredentialsError wrong(std::string_view source, std::string_view what) {
  return CredentialsError{std::string(source) + ": " + std::string(what)};
}

// Credentials of the four texts, or what is wrong with them. `expiration` empty: none was given.
SourceResult checked(std::string_view source, std::string_view id, std::string_view secret,
                     std::string_view token, std::string_view expiration, bool must_expire) {
  if (id.empty() || secret.empty()) {
    return wrong(source, id.empty() ? "the answer has no access key id"
                                    : "the answer has no secret access key");
  }
  if (const std::string_view name = unusable_of(
          {{"access key id", id}, {"secret access key", secret}, {"session token", token}});
      !name.empty()) {
    return wrong(source, "the " + std::string(name) +
                             " has a blank, a line break or another character that no key has");
  }
  std::optional<system_clock::time_point> expires;
  if (!expiration.empty()) {
    expires = parse_time(expiration);
    if (!expires) {
      return wrong(source, "the expiration is not of the form 2026-11-21T01:19:54Z");
    }
  } else if (must_expire) {
    return wrong(source, "the answer has no expiration");
  }
  Credentials credentials(id, secret, token);
  credentials.expiration = expires;
  return credentials;
}

// Milliseconds; no year that a time point of nanoseconds does not hold.
std::optional<system_clock::time_point> time_of_epoch(std::int64_t ms) noexcept {
  constexpr std::int64_t year_2200_ms = 7'258'118'400'000;
  if (ms < 0 || ms > year_2200_ms) return std::nullopt;
  return system_clock::time_point(std::chrono::milliseconds(ms));
}

}  // namespace

std::optional<system_clock::time_point> parse_time(std::string_view text) noexcept {
  // The parts of "2026-11-21T01:19:54" stand at fixed places.
  const auto number = [&](std::size_t at, std::size_t size) -> int {
    const auto value = parse_number<unsigned>(text.substr(at, size));
    return value ? static_cast<int>(*value) : -1;
  };
  if (text.size() < 20 || text[4] != '-' || text[7] != '-' || text[13] != ':' || text[16] != ':' ||
      (text[10] != 'T' && text[10] != 't' && text[10] != ' ')) {
    return std::nullopt;
  }
  using namespace std::chrono;
  const int year_number = number(0, 4);
  const int month_number = number(5, 2);
  const int day_number = number(8, 2);
  const int hour = number(11, 2);
  const int minute = number(14, 2);
  const int second = number(17, 2);
  if (year_number < 1970 || year_number > 2200 || month_number < 0 || day_number < 0 || hour < 0 ||
      hour > 23 || minute < 0 || minute > 59 || second < 0 || second > 60) {
    return std::nullopt;
  }
  const year_month_day date{year(year_number), month(static_cast<unsigned>(month_number)),
                            day(static_cast<unsigned>(day_number))};
  if (!date.ok()) return std::nullopt;
  system_clock::time_point time = sys_days(date) + hours(hour) + minutes(minute) + seconds(second);
  text.remove_prefix(19);
  if (text.front() == '.') {
    text.remove_prefix(1);
    const std::size_t digits = std::min(text.find_first_not_of("0123456789"), text.size());
    if (digits == 0) return std::nullopt;
    text.remove_prefix(digits);  // Less than a second.
  }
  if (text == "Z" || text == "z") return time;
  if (text.size() != 6 || (text[0] != '+' && text[0] != '-') || text[3] != ':') return std::nullopt;
  const int offset_hours = number(1, 2);
  const int offset_minutes = number(4, 2);
  if (offset_hours < 0 || offset_hours > 23 || offset_minutes < 0 || offset_minutes > 59) {
    return std::nullopt;
  }
  const minutes offset = hours(offset_hours) + minutes(offset_minutes);
  return text[0] == '+' ? time - offset : time + offset;
}

SourceResult credentials_from_json(std::string_view source, std::string& text,
                                   const CredentialsMembers& members) {
  const Document document(text);
  wipe(text);
  if (!document.ok()) return wrong(source, "the answer is not a JSON object");
  simdjson::dom::element root = document.root();
  if (!members.object.empty() && root[members.object].get(root) != simdjson::SUCCESS) {
    return wrong(source, "the answer has no " + std::string(members.object));
  }
  std::string_view expiration = text_of(root, members.expiration);
  std::optional<system_clock::time_point> epoch;
  if (members.expiration_is_epoch) {
    std::int64_t ms = 0;
    if (root[members.expiration].get(ms) == simdjson::SUCCESS) epoch = time_of_epoch(ms);
    if (!epoch) return wrong(source, "the expiration is no time in milliseconds");
    expiration = {};
  } else if (simdjson::dom::element given;
             expiration.empty() && root[members.expiration].get(given) == simdjson::SUCCESS &&
             !given.is_null() && !given.is_string()) {
    return wrong(source, "the expiration is not of the form 2026-11-21T01:19:54Z");
  }
  SourceResult result =
      checked(source, text_of(root, members.id), text_of(root, members.secret),
              text_of(root, members.token), expiration, members.must_expire && !epoch);
  if (auto* const credentials = std::get_if<Credentials>(&result); epoch && credentials) {
    credentials->expiration = epoch;
  }
  return result;
}

SourceResult credentials_from_sts(std::string_view source, std::string& text) {
  const std::string_view all = text;
  const auto element = [](std::string_view in, const std::string& name) {
    const std::size_t open = in.find("<" + name + ">");
    if (open == std::string_view::npos) return std::string_view{};
    const std::size_t begin = open + name.size() + 2;
    const std::size_t close = in.find("</" + name + ">", begin);
    return close == std::string_view::npos ? std::string_view{}
                                           : trim(in.substr(begin, close - begin));
  };
  const std::string_view credentials = element(all, "Credentials");
  // Nothing in a key, a token or a time needs an entity of XML.
  SourceResult result =
      checked(source, element(credentials, "AccessKeyId"), element(credentials, "SecretAccessKey"),
              element(credentials, "SessionToken"), element(credentials, "Expiration"), true);
  wipe(text);
  return result;
}

std::string json_text(std::string_view text, std::string_view member) {
  const Document document(text);
  return document.ok() ? std::string(text_of(document.root(), member)) : std::string();
}

std::optional<std::int64_t> json_number(std::string_view text, std::string_view member) {
  const Document document(text);
  std::int64_t number = 0;
  if (!document.ok() || document.root()[member].get(number) != simdjson::SUCCESS) {
    return std::nullopt;
  }
  return number;
}

std::string_view unusable_of(std::initializer_list<NamedValue> values) noexcept {
  for (const auto& [name, value] : values) {
    const auto is_bad = [](char c) { return static_cast<unsigned char>(c) <= 0x20 || c == 0x7f; };
    if (std::any_of(value.begin(), value.end(), is_bad)) return name;
  }
  return {};
}

}  // namespace spillway::transport
