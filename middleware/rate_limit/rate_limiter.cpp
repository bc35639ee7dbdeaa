// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <charconv>
#include <optional>
#include <unordered_map>
#include <unordered_set>

#include <spillway/middleware/rate_limit/rate_limiter.hpp>

namespace spillway::middleware {
namespace {

using Outcome = RateDecision::Outcome;

constexpr std::int64_t second_ns = 1'000'000'000;

std::string_view to_string(Outcome outcome) noexcept {
  switch (outcome) {
    case Outcome::admitted:
      return "admitted";
    case Outcome::denied:
      return "denied";
    case Outcome::admitted_unavailable:
      return "admitted_unavailable";
    case Outcome::denied_unavailable:
      break;
  }
  return "denied_unavailable";
}

// Seconds, rounded up: who comes back then comes in time.
constexpr std::int64_t seconds_of(std::int64_t ns) noexcept {
  return ns <= 0 ? 0 : (ns - 1) / second_ns + 1;
}

// A text on the stack that is cut when it is too long.
template <std::size_t bytes_max>
class Line {
 public:
  Line& add(std::string_view text) noexcept {
    const std::size_t size = std::min(text.size(), bytes_max - used_);
    std::copy_n(text.data(), size, bytes_.data() + used_);
    used_ += size;
    return *this;
  }
  Line& add(std::int64_t number) noexcept {
    std::array<char, 20> digits;
    const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), number).ptr;
    return add({digits.data(), static_cast<std::size_t>(end - digits.data())});
  }
  bool empty() const noexcept { return used_ == 0; }
  std::string_view view() const noexcept { return {bytes_.data(), used_}; }

 private:
  std::array<char, bytes_max> bytes_;
  std::size_t used_ = 0;
};

struct TextHash {
  using is_transparent = void;
  std::size_t operator()(std::string_view text) const noexcept {
    return detail::siphash128(detail::process_hash_key(), text).low;
  }
};

bool is_policy_name(std::string_view name) {
  return !name.empty() && name.size() <= 64 && std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_' || c == '.';
  });
}

// The name that a part has in a key's text.
std::string field_name(const RateKeyPart& part) {
  switch (part.source) {
    case RateKeySource::tenant:
      return "tenant";
    case RateKeySource::user:
      return "user";
    case RateKeySource::client_address:
      return "client";
    case RateKeySource::route:
      return "route";
    case RateKeySource::method:
      return "method";
    case RateKeySource::header:
      break;
  }
  return "header:" + part.header;
}

std::string lines_of(const std::vector<std::string>& errors) {
  std::string text = "the rate limiter cannot work so:";
  for (const std::string& error : errors) text.append("\n  ").append(error);
  return text;
}

}  // namespace

InvalidRateLimiter::InvalidRateLimiter(std::vector<std::string> errors)
    : std::invalid_argument(lines_of(errors)), errors_(std::move(errors)) {}

// A limit made ready, with the texts that speak of it.
struct RateLimiter::Rule {
  Rule(const std::string& name, const RateLimit& limit) : rule(limit) {
    // draft-ietf-httpapi-ratelimit-headers-10, 3.1: "w" is a whole number of seconds.
    policy = '"' + name + "\";q=" + std::to_string(limit.permits);
    const bool whole = limit.window.count() % second_ns == 0;
    if (whole) policy += ";w=" + std::to_string(limit.window.count() / second_ns);
    words = std::to_string(limit.permits) + " requests in " +
            (whole ? std::to_string(limit.window.count() / second_ns) + " s"
                   : std::to_string(limit.window / std::chrono::milliseconds(1)) + " ms");
  }
  detail::RateRule rule;
  std::string policy;
  std::string words;
};

struct RateLimiter::Policy {
  using Overrides = std::unordered_map<std::string, Rule, TextHash, std::equal_to<>>;
  struct Part {
    RateKeyPart part;
    std::string name;
  };
  std::string name;
  std::string decision;
  Rule fallback;
  std::vector<Part> by;
  Overrides tenants;
  Overrides users;
  std::array<Counter, 4> decisions;
};

RateLimiter::RateLimiter(Engine& engine, RateStore& store, const RateLimiterOptions& options)
    : engine_(engine),
      store_(store),
      ipv4_prefix_(options.ipv4_prefix),
      ipv6_prefix_(options.ipv6_prefix),
      exclude_successful_(options.exclude_successful),
      headers_(options.headers) {
  std::vector<std::string> errors;
  if (options.policies.empty() || options.policies.size() > rate_policies_max) {
    errors.push_back("policies: there are " + std::to_string(options.policies.size()) +
                     ", allowed are 1 to " + std::to_string(rate_policies_max));
  }
  const auto check_prefix = [&](const char* name, int bits, int bits_max) {
    if (bits < 1 || bits > bits_max) {
      errors.push_back(std::string(name) + " is " + std::to_string(bits) + ", allowed is 1 to " +
                       std::to_string(bits_max));
    }
  };
  check_prefix("ipv4_prefix", ipv4_prefix_, 32);
  check_prefix("ipv6_prefix", ipv6_prefix_, 128);
  for (std::size_t i = 0; i < options.policies.size(); ++i) {
    const RatePolicy& policy = options.policies[i];
    const std::string where = "policies[" + std::to_string(i) + "]";
    if (!is_policy_name(policy.name)) {
      errors.push_back(where + ": name is \"" + policy.name +
                       "\", allowed are 1 to 64 letters, digits, '-', '_', '.'");
    }
    for (std::size_t j = 0; j < i; ++j) {
      if (options.policies[j].name == policy.name)
        errors.push_back(where + ": name \"" + policy.name + "\" is taken by policies[" +
                         std::to_string(j) + "]");
    }
    if (policy.by.empty() != policy.global) {
      errors.push_back(where + (policy.global
                                    ? ": is global and has a key (by)"
                                    : ": has no key (by); say what it counts by, or global"));
    }
    if (policy.by.size() > RateKey::fields_max) {
      errors.push_back(where + ": by has " + std::to_string(policy.by.size()) +
                       " parts, allowed are " + std::to_string(RateKey::fields_max));
    }
    const auto has = [&](RateKeySource source) {
      return std::any_of(policy.by.begin(), policy.by.end(),
                         [&](const RateKeyPart& part) { return part.source == source; });
    };
    for (const RateKeyPart& part : policy.by) {
      if ((part.source == RateKeySource::header) == part.header.empty())
        errors.push_back(where + ": by: a header, and nothing else, has a name");
    }
    validate(policy.limit, where, errors);
    const auto check_overrides = [&](const char* name, const auto& overrides,
                                     RateKeySource source) {
      if (!overrides.empty() && !has(source))
        errors.push_back(where + ": " + name + " has limits, but the policy does not count by it");
      if (overrides.size() > rate_overrides_max)
        errors.push_back(where + ": " + name + " has more than " +
                         std::to_string(rate_overrides_max));
      std::unordered_set<std::string_view> names;
      for (std::size_t j = 0; j < overrides.size(); ++j) {
        if (overrides[j].first.empty())
          errors.push_back(where + ": " + name + " has an empty name");
        if (!names.insert(overrides[j].first).second)
          errors.push_back(where + ": " + name + " has \"" + overrides[j].first + "\" twice");
        validate(overrides[j].second, where + "." + name + "[" + overrides[j].first + "]", errors);
      }
    };
    check_overrides("tenants", policy.tenants, RateKeySource::tenant);
    check_overrides("users", policy.users, RateKeySource::user);
    needs_client_ = needs_client_ || has(RateKeySource::client_address);
  }
  if (!errors.empty()) throw InvalidRateLimiter(std::move(errors));

  for (const RatePolicy& policy : options.policies) {
    const auto compile = [&](const auto& overrides) {
      Policy::Overrides rules;
      for (const auto& [who, limit] : overrides) rules.emplace(who, Rule(policy.name, limit));
      return rules;
    };
    Policy& made = policies_.emplace_back(Policy{policy.name,
                                                 "rate_limit: " + policy.name,
                                                 Rule(policy.name, policy.limit),
                                                 {},
                                                 compile(policy.tenants),
                                                 compile(policy.users),
                                                 {}});
    for (const RateKeyPart& part : policy.by) made.by.push_back({part, field_name(part)});
    for (const Outcome outcome : {Outcome::admitted, Outcome::denied, Outcome::admitted_unavailable,
                                  Outcome::denied_unavailable}) {
      made.decisions[static_cast<std::size_t>(outcome)] =
          engine.counter("RateLimitDecisions", Unit::count,
                         {{"Policy", policy.name}, {"Outcome", std::string(to_string(outcome))}});
    }
  }
}

RateLimiter::~RateLimiter() = default;

const RateLimiter::Rule& RateLimiter::rule_of(const Policy& policy,
                                              const Exchange& exchange) const noexcept {
  if (!policy.users.empty()) {
    if (const auto found = policy.users.find(exchange.user); found != policy.users.end())
      return found->second;
  }
  if (!policy.tenants.empty()) {
    if (const auto found = policy.tenants.find(exchange.tenant); found != policy.tenants.end())
      return found->second;
  }
  return policy.fallback;
}

RateKey RateLimiter::key_of(const Policy& policy, const State& state,
                            const Exchange& exchange) const noexcept {
  RateKey key(policy.name);
  for (const Policy::Part& one : policy.by) {
    const auto add = [&](std::string_view value) { key.add(one.name, value, one.part.secret); };
    switch (one.part.source) {
      case RateKeySource::tenant:
        add(exchange.tenant);
        break;
      case RateKeySource::user:
        add(exchange.user);
        break;
      case RateKeySource::client_address:
        if (state.has_client_) {
          key.add(one.name, state.client_);
        } else {
          add({});
        }
        break;
      case RateKeySource::route:
        add(exchange.route.path_template);
        break;
      case RateKeySource::method:
        add(exchange.request.method);
        break;
      case RateKeySource::header:
        add(exchange.request.header(one.part.header));
        break;
    }
  }
  return key;
}

void RateLimiter::find_client(State& state, const Exchange& exchange) const noexcept {
  const std::optional<IpAddress> client = IpAddress::parse(exchange.client_address);
  state.has_client_ = client.has_value();
  if (client) state.client_ = client->prefix(ipv4_prefix_, ipv6_prefix_);
}

void RateLimiter::give_back(State& state, const Exchange& exchange) noexcept {
  for (std::size_t i = 0; i < state.taken_; ++i) {
    const Policy& policy = policies_[i];
    store_.give_back(key_of(policy, state, exchange), rule_of(policy, exchange).rule, 1,
                     state.receipts_[i], exchange.begun);
  }
  state.taken_ = 0;
}

Verdict RateLimiter::before(State& state, Exchange& exchange) {
  if (needs_client_) find_client(state, exchange);
  Line<512> policies;
  Line<512> limits;
  RateDecision least;
  const Policy* denier = nullptr;
  const Rule* denying = nullptr;
  for (const Policy& policy : policies_) {
    const Rule& rule = rule_of(policy, exchange);
    const RateDecision decision =
        store_.take(key_of(policy, state, exchange), rule.rule, 1, exchange.begun);
    policy.decisions[static_cast<std::size_t>(decision.outcome)].add(1U);
    const bool admitted = decision.admitted();
    if (headers_ || !admitted) {
      if (!policies.empty()) {
        policies.add(", ");
        limits.add(", ");
      }
      policies.add(rule.policy);
      limits.add("\"").add(policy.name).add("\";r=").add(decision.remaining);
      limits.add(";t=").add(
          seconds_of(admitted ? decision.reset_after_ns : decision.retry_after_ns));
    }
    if (&policy == policies_.data() || !admitted || decision.remaining < least.remaining)
      least = decision;
    if (!admitted) {
      denier = &policy;
      denying = &rule;
      break;
    }
    state.receipts_[state.taken_++] = decision.receipt;
  }
  if (headers_ || denier != nullptr) {
    exchange.add_header("X-RateLimit-Limit", Line<20>().add(least.limit).view());
    exchange.add_header("X-RateLimit-Remaining", Line<20>().add(least.remaining).view());
    exchange.add_header("X-RateLimit-Reset",
                        Line<20>().add(seconds_of(least.reset_after_ns)).view());
    exchange.add_header("RateLimit-Policy", policies.view());
    exchange.add_header("RateLimit", limits.view());
  }
  if (denier == nullptr) return Verdict::proceed;
  give_back(state, exchange);
  return deny(exchange, *denier, *denying, least);
}

Verdict RateLimiter::deny(Exchange& exchange, const Policy& policy, const Rule& rule,
                          const RateDecision& decision) const noexcept {
  const std::int64_t wait_s = std::max(seconds_of(decision.retry_after_ns), std::int64_t{1});
  exchange.add_header("Retry-After", Line<20>().add(wait_s).view());
  SPILLWAY_DEBUG(engine_, "request denied by a rate limit", {"policy", policy.name},
                 {"route", exchange.route.path_template}, {"retry_after_s", wait_s},
                 {"outcome", to_string(decision.outcome)});
  if (decision.outcome == Outcome::denied_unavailable)
    return exchange.refuse(503, "the rate limiter is not available",
                           "rate_limit: store_unavailable");
  Line<400> detail;
  detail.add("the limit \"").add(policy.name).add("\" of ").add(rule.words);
  detail.add(" is reached; try again in ").add(wait_s).add(" s");
  return exchange.refuse(429, detail.view(), policy.decision);
}

void RateLimiter::after(State& state, const Exchange& exchange,
                        const ResponseFacts& facts) noexcept {
  if (exclude_successful_ && facts.status < 400 && facts.ending == Ending::sent)
    give_back(state, exchange);
}

}  // namespace spillway::middleware
