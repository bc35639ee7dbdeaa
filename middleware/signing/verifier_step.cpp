// SPDX-License-Identifier: Apache-2.0
#include <string>
#include <utility>

#include <spillway/middleware/signing/verifier_step.hpp>

namespace spillway::middleware {
namespace {

constexpr std::array<std::string_view, signature_refusal_count + 1> decision_texts{
    "",
    "signature: missing",
    "signature: malformed",
    "signature: not_covered",
    "signature: unknown_key",
    "signature: expired",
    "signature: from_the_future",
    "signature: wrong_signature",
    "signature: wrong_digest",
    "signature: body_not_read",
    "signature: body_hidden",
    "signature: body_too_large",
    "signature: replayed",
    "signature: replay_cache_full",
    "signature: forbidden"};

std::string_view outcome_of(std::size_t outcome) noexcept {
  return outcome == 0 ? "accepted" : decision_texts[outcome].substr(sizeof("signature: ") - 1);
}

std::vector<bool> needed_by(const Routes& routes, const SignatureStepOptions& options) {
  std::vector<bool> result;
  for (const Route& route : routes.all())
    result.push_back(!options.needed || options.needed(route));
  return result;
}

}  // namespace

SignatureStep::SignatureStep(Engine& engine, const Routes& routes,
                             std::shared_ptr<const SigningKeys> keys, SignatureStepOptions options)
    : engine_(engine),
      options_(std::move(options)),
      clock_(options_.clock != nullptr ? options_.clock : spillway::detail::system_clock()),
      needed_(needed_by(routes, options_)),
      verifier_(std::move(keys), options_.verifier) {
  for (std::size_t i = 0; i < decisions_.size(); ++i) {
    decisions_[i] = engine.counter("SignatureDecisions", Unit::count,
                                   {{"Outcome", std::string(outcome_of(i))}});
  }
}

Verdict SignatureStep::before(State& state, Exchange& exchange) {
  const std::uint32_t number = exchange.route.number;
  if (number < needed_.size() && !needed_[number]) return Verdict::proceed;
  const Verified verified = verifier_.verify(exchange.request, clock_->wall(), exchange.begun);
  if (!verified) return refuse(exchange, static_cast<std::size_t>(verified.refusal));
  if (options_.may_use && !options_.may_use(verified.key_id, exchange.route))
    return refuse(exchange, forbidden);
  state.key_id_ = verified.key_id;
  decisions_[0].add(1U);
  if (spell_.admitted(exchange.begun)) [[unlikely]]
    note_acceptance(exchange);
  return Verdict::proceed;
}

Verdict SignatureStep::refuse(Exchange& exchange, std::size_t outcome) noexcept {
  decisions_[outcome].add(1U);
  note_refusal(exchange, outcome);
  const std::string_view decision = decision_texts[outcome];
  if (outcome == forbidden) return exchange.refuse(403, {}, decision);
  switch (static_cast<SignatureRefusal>(outcome)) {
    case SignatureRefusal::body_too_large:
      return exchange.refuse(413, {}, decision);
    case SignatureRefusal::body_not_read:
      return exchange.refuse(411, "signed requests state the length of their body", decision);
    case SignatureRefusal::body_hidden:
      return exchange.refuse(501, "this server cannot check the signature of a body", decision);
    case SignatureRefusal::replay_cache_full:
      exchange.add_retry_after(std::chrono::seconds(1));
      return exchange.refuse(503, {}, decision);
    default:
      break;
  }
  // RFC 9110, 15.5.2: a 401 names a way to authenticate.
  exchange.add_header("WWW-Authenticate", "Signature");
  return exchange.refuse(401, "the request's signature was not accepted", decision);
}

void SignatureStep::note_refusal(const Exchange& exchange, std::size_t outcome) noexcept {
  if (!spell_.refused(exchange.begun)) return;
  const auto current = exchange.enter();
  SPILLWAY_WARN(engine_, "signatures are refused", {"reason", outcome_of(outcome)},
                {"client", exchange.client_address}, {"route", exchange.route.name});
}

void SignatureStep::note_acceptance(const Exchange& exchange) noexcept {
  const auto current = exchange.enter();
  SPILLWAY_INFO(engine_, "signatures are accepted again");
}

}  // namespace spillway::middleware
