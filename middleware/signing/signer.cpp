// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
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

std::string_view find_header(const void* message, std::string_view name, std::size_t nth) {
  for (const transport::HttpHeader& header :
       *static_cast<const std::vector<transport::HttpHeader>*>(message)) {
    if (transport::equal_without_case(header.name, name) && nth-- == 0) return header.value;
  }
  return {};
}

void set_header(std::vector<transport::HttpHeader>& headers, std::string_view name,
                std::string value) {
  std::erase_if(headers, [&](const transport::HttpHeader& header) {
    return transport::equal_without_case(header.name, name);
  });
  headers.push_back({std::string(name), std::move(value)});
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
  const auto url = transport::parse_url(request.origin);
  if (!url) return "\"" + request.origin + "\" is no http or https URL";
  set_header(request.headers, "Content-Digest",
             "sha-256=:" + std::string(Base64Digest(transport::sha256(request.body)).view()) + ":");
  const std::string host = url->host_header();
  const RequestView view{.method = request.method,
                         .path = request.path,
                         .query = request.query,
                         .scheme = url->scheme,
                         .host = host,
                         .headers = {&request.headers, find_header},
                         .body = request.body};
  std::string input = "(";
  for (const std::string_view name : covered_always)
    input.append(input.size() > 1 ? " \"" : "\"").append(name).append("\"");
  for (const std::string& name : protected_headers_) {
    if (view.headers.contains(name)) input.append(" \"").append(name).append("\"");
  }
  std::array<std::uint8_t, 16> nonce{};
  if (RAND_bytes(nonce.data(), static_cast<int>(nonce.size())) != 1)
    return "the system gives no random bytes";
  const auto seconds = std::chrono::floor<std::chrono::seconds>(now.time_since_epoch()).count();
  input.append(");created=").append(std::to_string(seconds));
  input.append(";keyid=\"").append(key->id);
  input.append("\";alg=\"").append(signature_algorithm);
  input.append("\";nonce=\"").append(transport::hex(nonce)).append("\"");
  const auto parsed = parse_signature_input(input);
  spillway::detail::ByteBuffer base;
  if (!parsed || !append_signature_base(base, view, *parsed))
    return "a protected header is there more than once, or has a name that cannot be signed";
  const Base64Digest signature(transport::hmac_sha256(key->bytes(), base.view()));
  const std::string label(signature_label);
  set_header(request.headers, "Signature-Input", label + "=" + input);
  set_header(request.headers, "Signature", label + "=:" + std::string(signature.view()) + ":");
  return {};
}

}  // namespace spillway::middleware
