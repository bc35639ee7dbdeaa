// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <charconv>
#include <cstddef>
#include <initializer_list>
#include <memory_resource>
#include <stdexcept>
#include <utility>

#include <openssl/rand.h>

#include <spillway/middleware/signing/http_signature.hpp>
#include <spillway/middleware/signing/key_material.hpp>
#include <spillway/middleware/signing/signer.hpp>
#include <spillway/transport/text.hpp>
#include <spillway/transport/url.hpp>

namespace spillway::middleware {
namespace {

// Three buffers, which begin with so much each.
constexpr std::size_t scratch_bytes = std::size_t{3} * 4096;

std::string_view find_header(const void* message, std::string_view name, std::size_t nth) {
  for (const transport::HttpHeader& header :
       *static_cast<const std::vector<transport::HttpHeader>*>(message)) {
    if (transport::equal_without_case(header.name, name) && nth-- == 0) return header.value;
  }
  return {};
}

/// The value of the one header of a name, to be written: of a request that was signed before its memory
/// serves again.
std::string& header_to_set(std::vector<transport::HttpHeader>& headers, std::string_view name) {
  const auto is_it = [&](const transport::HttpHeader& header) {
    return transport::equal_without_case(header.name, name);
  };
  const auto first = std::find_if(headers.begin(), headers.end(), is_it);
  if (first == headers.end()) {
    headers.push_back({std::string(name), {}});
    return headers.back().value;
  }
  headers.erase(std::remove_if(first + 1, headers.end(), is_it), headers.end());
  return first->value;
}

}  // namespace

std::vector<std::string> default_protected_headers() {
  return {"content-type",      "x-tenant-id",        "x-user-id",      "x-request-id",
          "x-request-timeout", "x-request-priority", "idempotency-key"};
}

RequestSigner::RequestSigner(std::shared_ptr<const SigningKeys> keys,
                             std::vector<std::string> protected_headers)
    : keys_(std::move(keys)), protected_headers_([&] {
        for (std::string& name : protected_headers) name = transport::lower(name);
        return std::move(protected_headers);
      }()) {
  if (covered_always.size() + protected_headers_.size() > signature_components_max)
    throw std::invalid_argument("spillway: more than 19 protected headers");
}

std::string RequestSigner::sign(transport::HttpRequest& request, WallTime now) const {
  const auto key = keys_->signing(now);
  if (key == nullptr) return "no signing key is valid now";
  const auto url = transport::split_url(request.origin);
  if (!url) return "\"" + request.origin + "\" is no http or https URL";
  const Base64Digest digest(transport::sha256(request.body));
  header_to_set(request.headers, "Content-Digest")
      .assign("sha-256=:")
      .append(digest.view())
      .append(":");

  // What is longer than usual comes from the heap.
  std::array<std::byte, scratch_bytes> memory;
  std::pmr::monotonic_buffer_resource resource(memory.data(), memory.size());
  spillway::detail::ByteBuffer host(&resource);
  for (const char c : url->host) host.append(transport::to_lower(c));
  const auto append_number = [](spillway::detail::ByteBuffer& out, std::int64_t value) {
    std::array<char, 20> digits;
    const char* const end = std::to_chars(digits.data(), digits.data() + digits.size(), value).ptr;
    out.append({digits.data(), static_cast<std::size_t>(end - digits.data())});
  };
  if (!url->is_own_port()) {
    host.append(":");
    append_number(host, url->port);
  }
  const RequestView view{
      .method = request.method,
      .path = request.path,
      .query = request.query,
      .scheme = transport::equal_without_case(url->scheme, "https") ? "https" : "http",
      .host = host.view(),
      .headers = {&request.headers, find_header},
      .body = request.body};
  spillway::detail::ByteBuffer input(&resource);
  const auto append = [&](std::initializer_list<std::string_view> texts) {
    for (const std::string_view text : texts) input.append(text);
  };
  append({"("});
  for (const std::string_view name : covered_always)
    append({input.size() > 1 ? " \"" : "\"", name, "\""});
  for (const std::string& name : protected_headers_) {
    if (view.headers.contains(name)) append({" \"", name, "\""});
  }
  std::array<std::uint8_t, 16> nonce{};
  if (RAND_bytes(nonce.data(), static_cast<int>(nonce.size())) != 1)
    return "the system gives no random bytes";
  append({");created="});
  append_number(input, std::chrono::floor<std::chrono::seconds>(now.time_since_epoch()).count());
  append({";keyid=\"", key->id, "\";alg=\"", signature_algorithm, "\";nonce=\""});
  constexpr std::string_view hex = "0123456789abcdef";
  for (const std::uint8_t byte : nonce)
    append({hex.substr(byte / 16U, 1), hex.substr(byte % 16U, 1)});
  append({"\""});

  const auto parsed = parse_signature_input(input.view());
  spillway::detail::ByteBuffer base(&resource);
  if (!parsed || !append_signature_base(base, view, *parsed))
    return "a protected header is there more than once, or has a name that cannot be signed";
  const Base64Digest signature(transport::hmac_sha256(key->bytes(), base.view()));
  const auto member = [](std::string& value) -> std::string& {
    return value.assign(signature_label).append("=");
  };
  member(header_to_set(request.headers, "Signature-Input")).append(input.view());
  member(header_to_set(request.headers, "Signature"))
      .append(":")
      .append(signature.view())
      .append(":");
  return {};
}

}  // namespace spillway::middleware
