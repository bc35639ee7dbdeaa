// SPDX-License-Identifier: Apache-2.0
#include <array>
#include <cstddef>
#include <memory_resource>
#include <new>
#include <utility>

#include <spillway/middleware/resilience/settings.hpp>
#include <spillway/middleware/signing/http_signature.hpp>
#include <spillway/middleware/signing/key_material.hpp>
#include <spillway/middleware/signing/verifier.hpp>
#include <spillway/transport/text.hpp>

namespace spillway::middleware {

using std::chrono::seconds;

std::string_view to_string(SignatureRefusal refusal) noexcept {
  constexpr std::array<std::string_view, signature_refusal_count> names{
      "none",        "missing",         "malformed",       "not_covered",      "unknown_key",
      "expired",     "from_the_future", "wrong_signature", "wrong_digest",     "body_not_read",
      "body_hidden", "body_too_large",  "replayed",        "replay_cache_full"};
  return names[static_cast<std::size_t>(refusal)];
}

void SignatureVerifierOptions::check() const {
  SettingsCheck("the signature verifier")
      .within("age_max", age_max, seconds(1), seconds(3600))
      .within("clock_ahead", clock_ahead, seconds(0), seconds(3600))
      .within<std::size_t>("body_bytes_max", body_bytes_max, 0, std::size_t{1} << 30)
      .within<std::size_t>("replay_entries", replay_entries, 1, std::size_t{1} << 24)
      .within<std::size_t>("protected_headers.size()", protected_headers.size(), 0,
                           signature_components_max - covered_always.size())
      .done();
}

SignatureVerifier::SignatureVerifier(std::shared_ptr<const SigningKeys> keys,
                                     SignatureVerifierOptions options)
    : keys_(std::move(keys)),
      options_((options.check(), std::move(options))),
      // So long the same signature is neither too new nor too old. A second for its rounding.
      seen_(options_.replay_entries, options_.age_max + options_.clock_ahead + seconds(1)) {}

SignatureRefusal SignatureVerifier::check_body(const RequestView& request) const {
  if (request.body_hidden) return SignatureRefusal::body_hidden;
  const auto most = static_cast<std::int64_t>(options_.body_bytes_max);
  if (request.body_bytes > most || request.body.size() > options_.body_bytes_max)
    return SignatureRefusal::body_too_large;
  if (request.body_bytes >= 0) {
    return static_cast<std::size_t>(request.body_bytes) == request.body.size()
               ? SignatureRefusal::none
               : SignatureRefusal::body_not_read;
  }
  // Its length is not known to the adapter: there is none, or it may not all be here.
  const std::string_view length = request.header("Content-Length");
  const bool none = request.body.empty() && !request.headers.contains("Transfer-Encoding") &&
                    (length.data() == nullptr || length == "0");
  return none ? SignatureRefusal::none : SignatureRefusal::body_not_read;
}

Verified SignatureVerifier::verify(const RequestView& request, WallTime wall, SteadyTime steady) {
  const auto refused = [](SignatureRefusal refusal) { return Verified{refusal, {}}; };
  const Headers& headers = request.headers;
  const std::string_view inputs = headers.find("Signature-Input");
  const std::string_view signatures = headers.find("Signature");
  if (inputs.data() == nullptr || signatures.data() == nullptr)
    return refused(SignatureRefusal::missing);
  if (headers.find("Signature-Input", 1).data() != nullptr ||
      headers.find("Signature", 1).data() != nullptr)
    return refused(SignatureRefusal::malformed);
  const auto value = find_member(inputs, signature_label);
  auto signature = find_member(signatures, signature_label);
  if (!value || !signature) return refused(SignatureRefusal::missing);
  const auto input = parse_signature_input(*value);
  constexpr std::size_t signature_chars = 46;  // ":" base64 of 32 bytes ":"
  if (!input || input->nonce.size() < nonce_chars_min || input->nonce.size() > nonce_chars_max ||
      input->key_id.size() > signing_key_id_chars_max || signature->size() != signature_chars ||
      signature->front() != ':' || signature->back() != ':')
    return refused(SignatureRefusal::malformed);

  for (const std::string_view name : covered_always) {
    if (!input->covers(name)) return refused(SignatureRefusal::not_covered);
  }
  for (const std::string& name : options_.protected_headers) {
    if (headers.contains(name) && !input->covers(name))
      return refused(SignatureRefusal::not_covered);
  }

  const auto key = keys_->verifying(input->key_id, wall);
  if (key == nullptr) return refused(SignatureRefusal::unknown_key);
  // In seconds of the same rounding, and without arithmetic on a number that anybody may choose.
  const std::int64_t now = std::chrono::floor<seconds>(wall.time_since_epoch()).count();
  if (input->created < now - options_.age_max.count()) return refused(SignatureRefusal::expired);
  if (input->created > now + options_.clock_ahead.count())
    return refused(SignatureRefusal::from_the_future);

  if (const SignatureRefusal body = check_body(request); body != SignatureRefusal::none)
    return refused(body);

  std::array<std::byte, 2 * signature_base_bytes_max> memory;
  std::pmr::monotonic_buffer_resource resource(memory.data(), memory.size(),
                                               std::pmr::null_memory_resource());
  spillway::detail::ByteBuffer base(&resource);
  try {
    base.reserve(signature_base_bytes_max);
    if (!append_signature_base(base, request, *input))
      return refused(SignatureRefusal::not_covered);
  } catch (const std::bad_alloc&) {  // Longer than any that we sign.
    return refused(SignatureRefusal::malformed);
  }
  const Base64Digest expected(transport::hmac_sha256(key->bytes(), base.view()));
  // As text: base64 has several spellings of the last byte, and only one of them is ours.
  if (!transport::equal_in_constant_time(signature->substr(1, signature_chars - 2),
                                         expected.view()))
    return refused(SignatureRefusal::wrong_signature);

  // The digest is signed: that it is there once, append_signature_base() has seen.
  const std::string_view digest = transport::trim(headers.find("Content-Digest"));
  const Base64Digest body(transport::sha256(request.body));
  constexpr std::string_view prefix = "sha-256=:";
  if (digest.size() != prefix.size() + body.view().size() + 1 || !digest.starts_with(prefix) ||
      !digest.ends_with(':') ||
      !transport::equal_in_constant_time(digest.substr(prefix.size(), body.view().size()),
                                         body.view()))
    return refused(SignatureRefusal::wrong_digest);

  // Last: nobody without a key fills the cache.
  switch (seen_.remember(input->key_id, input->nonce, steady)) {
    case ReplayCache::Verdict::fresh:
      return {SignatureRefusal::none, input->key_id};
    case ReplayCache::Verdict::seen:
      return refused(SignatureRefusal::replayed);
    case ReplayCache::Verdict::full:
      break;
  }
  return refused(SignatureRefusal::replay_cache_full);
}

}  // namespace spillway::middleware
