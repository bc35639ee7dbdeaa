// SPDX-License-Identifier: Apache-2.0
//
// The verifier (verifier.hpp) as a step of a chain: requests that are not signed by one of the keys are
// answered 401 and go no further. Behind RequestId and Observability, so that refusals are seen; before
// everything that believes a header. What those two read of it (the tenant of their logs and metrics)
// is not verified yet: at an edge that strangers reach, set their extractors to what a stranger may say.
//
//   SignatureStep signature(engine, routes, keys, {.needed = [](const Route& route) {
//     return route.path_template != "/public/{page}";
//   }});
//
// The client hears only that its signature was not accepted. Metrics: SignatureDecisions by Outcome
// (accepted, and the refusals of SignatureRefusal). A log when refusals begin and when there was none
// for a while; a refused request's `decision` is "signature: " and the refusal.
//
// Thread-safe.
#pragma once

#include <array>
#include <chrono>
#include <functional>
#include <memory>
#include <string_view>
#include <vector>

#include <spillway/engine/engine.hpp>
#include <spillway/middleware/exchange.hpp>
#include <spillway/middleware/resilience/refusal_spell.hpp>
#include <spillway/middleware/signing/verifier.hpp>

namespace spillway::middleware {

struct SignatureStepOptions {
  SignatureVerifierOptions verifier{};
  /// Whether a route's requests must be signed; asked once for each by the constructor. Null: all,
  /// also those of no route.
  std::function<bool(const Route&)> needed{};
  /// Of the key ids that verify, which may use a route. Null: each may use all.
  std::function<bool(std::string_view key_id, const Route&)> may_use{};
  std::shared_ptr<Clock> clock{};  ///< null: the system's
};

class SignatureStep {
 public:
  class State {
   public:
    /// Who signed the request; empty: nobody had to. Lives as long as the request.
    std::string_view key_id() const noexcept { return key_id_; }

   private:
    friend class SignatureStep;
    std::string_view key_id_;
  };

  /// `engine` outlives the step. Throws std::invalid_argument for options that cannot work.
  SignatureStep(Engine& engine, const Routes& routes, std::shared_ptr<const SigningKeys> keys,
                SignatureStepOptions options = {});
  SignatureStep(const SignatureStep&) = delete;
  SignatureStep& operator=(const SignatureStep&) = delete;

  Verdict before(State& state, Exchange& exchange);

  /// Without a refusal for so long, they are said to be over.
  static constexpr std::chrono::seconds calm_after{60};

 private:
  Verdict refuse(Exchange& exchange, std::size_t outcome) noexcept;
  [[gnu::cold]] void note_refusal(const Exchange& exchange, std::size_t outcome) noexcept;
  [[gnu::cold]] void note_acceptance(const Exchange& exchange) noexcept;

  static constexpr std::size_t forbidden = signature_refusal_count;  // by may_use
  Engine& engine_;
  const SignatureStepOptions options_;
  const std::shared_ptr<Clock> clock_;
  const std::vector<bool> needed_;  // by Route::number
  SignatureVerifier verifier_;
  std::array<Counter, signature_refusal_count + 1> decisions_;
  RefusalSpell spell_{calm_after};
};

}  // namespace spillway::middleware
