// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include <openssl/evp.h>

#include <spillway/middleware/signing/http_signature.hpp>
#include <spillway/transport/text.hpp>

namespace spillway::middleware {
namespace {

/// Takes `token` off the front of `text`.
bool take(std::string_view& text, std::string_view token) noexcept {
  if (!text.starts_with(token)) return false;
  text.remove_prefix(token.size());
  return true;
}

/// A string in quotes, without escapes (which none of ours needs).
std::optional<std::string_view> take_string(std::string_view& text) noexcept {
  if (!take(text, "\"")) return std::nullopt;
  const auto end = text.find('"');
  if (end == std::string_view::npos) return std::nullopt;
  const std::string_view content = text.substr(0, end);
  if (!std::all_of(content.begin(), content.end(),
                   [](char c) { return c >= ' ' && c <= '~' && c != '\\'; }))
    return std::nullopt;
  text.remove_prefix(end + 1);
  return content;
}

bool is_name_character(char c) noexcept {
  return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_' || c == '.' ||
         c == '@';
}

/// The header's value as it is signed; nothing when it is absent, or there several times.
std::optional<std::string_view> single(const Headers& headers, std::string_view name) {
  const std::string_view value = headers.find(name);
  if (value.data() == nullptr || headers.find(name, 1).data() != nullptr) return std::nullopt;
  return transport::trim(value);
}

// RFC 9421, 2.2.3: lower case, without the scheme's own port.
void append_authority(spillway::detail::ByteBuffer& out, const RequestView& request) {
  std::string_view host = request.host;
  const std::string_view own_port = request.scheme == "https" ? ":443" : ":80";
  if (host.ends_with(own_port)) host.remove_suffix(own_port.size());
  for (const char c : host) {
    const char lower = transport::to_lower(c);
    out.append({&lower, 1});
  }
}

bool append_component(spillway::detail::ByteBuffer& out, const RequestView& request,
                      std::string_view name) {
  if (name == "@method") {
    out.append(request.method);
  } else if (name == "@authority") {
    append_authority(out, request);
  } else if (name == "@path") {
    out.append(request.path.empty() ? "/" : request.path);
  } else if (name == "@query") {
    out.append("?");
    out.append(request.query);
  } else if (name.starts_with('@')) {
    return false;
  } else {
    const auto value = single(request.headers, name);
    if (!value) return false;
    out.append(*value);
  }
  return true;
}

}  // namespace

bool SignatureInput::covers(std::string_view component) const noexcept {
  const auto end = components.begin() + static_cast<std::ptrdiff_t>(component_count);
  return std::find_if(components.begin(), end, [&](std::string_view one) {
           return transport::equal_without_case(one, component);
         }) != end;
}

std::optional<std::string_view> find_member(std::string_view dictionary,
                                            std::string_view label) noexcept {
  std::optional<std::string_view> found;
  while (!dictionary.empty()) {
    bool in_string = false;
    std::size_t end = 0;
    for (; end < dictionary.size() && (in_string || dictionary[end] != ','); ++end)
      in_string ^= dictionary[end] == '"';
    std::string_view member = transport::trim(dictionary.substr(0, end));
    dictionary.remove_prefix(std::min(end + 1, dictionary.size()));
    if (!take(member, label) || !take(member, "=")) continue;
    if (found) return std::nullopt;
    found = member;
  }
  return found;
}

std::optional<SignatureInput> parse_signature_input(std::string_view value) noexcept {
  SignatureInput input;
  input.parameters = value;
  if (!take(value, "(")) return std::nullopt;
  while (!take(value, ")")) {
    if (input.component_count > 0 && !take(value, " ")) return std::nullopt;
    const auto name = take_string(value);
    if (!name || name->empty() || input.component_count == signature_components_max ||
        !std::all_of(name->begin(), name->end(), is_name_character) || input.covers(*name))
      return std::nullopt;
    input.components[input.component_count++] = *name;
  }
  bool created = false;
  bool algorithm = false;
  while (!value.empty()) {
    if (take(value, ";created=") && !created) {
      const auto end = std::min(value.find(';'), value.size());
      const auto seconds = transport::parse_number<std::int64_t>(value.substr(0, end));
      if (!seconds) return std::nullopt;
      input.created = *seconds;
      created = true;
      value.remove_prefix(end);
    } else if (take(value, ";keyid=") && input.key_id.empty()) {
      const auto text = take_string(value);
      if (!text || text->empty()) return std::nullopt;
      input.key_id = *text;
    } else if (take(value, ";nonce=") && input.nonce.empty()) {
      const auto text = take_string(value);
      if (!text || text->empty()) return std::nullopt;
      input.nonce = *text;
    } else if (take(value, ";alg=") && !algorithm) {
      const auto text = take_string(value);
      if (!text || *text != signature_algorithm) return std::nullopt;
      algorithm = true;
    } else {
      return std::nullopt;
    }
  }
  if (!created || input.key_id.empty()) return std::nullopt;
  return input;
}

bool append_signature_base(spillway::detail::ByteBuffer& out, const RequestView& request,
                           const SignatureInput& input) {
  for (std::size_t i = 0; i < input.component_count; ++i) {
    out.append("\"");
    out.append(input.components[i]);
    out.append("\": ");
    if (!append_component(out, request, input.components[i])) return false;
    out.append("\n");
  }
  out.append("\"@signature-params\": ");
  out.append(input.parameters);
  return true;
}

Base64Digest::Base64Digest(const transport::Sha256& digest) noexcept {
  EVP_EncodeBlock(reinterpret_cast<unsigned char*>(text_.data()), digest.data(),
                  static_cast<int>(digest.size()));
}

}  // namespace spillway::middleware
