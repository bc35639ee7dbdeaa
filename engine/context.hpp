// SPDX-License-Identifier: Apache-2.0
//
// On whose behalf a thread works: tenant, user, request id, and the place in a trace. Set once per
// request by a Scope; every log and span under it carries it, and metrics can take the tenant or
// user as a dimension.
//
//   spillway::Context context{{.tenant = "acme", .user = "u-17", .request_id = id}};
//   spillway::Scope scope(context);     // until the end of the block, on this thread
//   pool.post([context = spillway::Context::current()] {     // and on another one
//     spillway::Scope scope(context);
//     ...
//   });
#pragma once

#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>

#include <spillway/buffers/record.hpp>

namespace spillway {

/// What an upstream said of sampling.
enum class Sampled : std::uint8_t { unknown, yes, no };

namespace detail {

/// A short text without a heap: tenants, users and request ids are. Longer ones, up to 1024
/// characters, are on the heap.
class ShortText {
 public:
  ShortText() = default;
  explicit ShortText(std::string_view text) {
    text = text.substr(0, 1024);
    bytes_ = static_cast<std::uint16_t>(text.size());
    if (bytes_ <= sizeof(inline_)) {
      if (bytes_ != 0) std::memcpy(inline_, text.data(), bytes_);
    } else {
      long_ = text;
    }
  }
  std::string_view view() const noexcept {
    return bytes_ <= sizeof(inline_) ? std::string_view(inline_, bytes_) : std::string_view(long_);
  }

 private:
  char inline_[62];
  std::uint16_t bytes_ = 0;
  std::string long_;
};

}  // namespace detail

/// Where in a trace a request comes from, as its headers say it (trace_header.hpp).
struct TraceParent {
  TraceId trace_id;
  std::uint64_t parent_id = 0;  ///< the caller's span; 0: none
  Sampled sampled = Sampled::unknown;
  /// In Lambda the function's segment is written by the service: spans are subsegments of it.
  bool segment_is_lambdas = false;
  /// What is handed on without being understood: fields of X-Amzn-Trace-Id such as Lineage, as
  /// "key=value;key=value", and W3C's tracestate. Printable ASCII.
  detail::ShortText fields{};
  detail::ShortText trace_state{};
};

/// What a new context is made of. Texts are copied; each is cut at 1024 characters.
struct ContextFields {
  std::string_view tenant{};
  std::string_view user{};
  std::string_view request_id{};
  /// The caller's trace, which what is recorded becomes a part of, with its sampling decision.
  std::optional<TraceParent> trace{};
  /// The trace of a caller that is not trusted. A trace of our own begins, sampled as we decide; its
  /// segment links to the caller's.
  std::optional<TraceParent> link{};
};

namespace detail {

struct Identity {
  ShortText tenant;
  ShortText user;
  ShortText request_id;
  ShortText trace_fields;  ///< of the caller's headers, for ours
  ShortText trace_state;
  TraceId link_trace_id;  ///< of a caller that is not trusted
  std::uint64_t link_span_id = 0;
};

/// The number of a tenant or user that nobody has asked for yet.
inline constexpr std::uint32_t identity_unasked = ~std::uint32_t{0};

/// A thread's current context. Trivial, so that reading it costs one instruction.
struct Active {
  std::uint64_t serial = 0;            ///< changes when identity or trace do; 0: no context
  const Identity* identity = nullptr;  ///< owned by the Context that a Scope was given
  TraceId trace_id;
  std::uint64_t span_id = 0;  ///< of the innermost open span; before the first one, of the caller's
  std::uint64_t segment_id = 0;  ///< this service's root span in the trace; 0: none open yet
  std::uint64_t engine_id = 0;   ///< that segment_id belongs to
  std::uint32_t tenant_number = 0;
  std::uint32_t user_number = 0;
  Sampled sampled = Sampled::unknown;
  std::uint16_t span_flags = 0;  ///< SpanFlag that the spans below begin with

  std::uint32_t number_of(bool tenant) const noexcept {
    return tenant ? tenant_number : user_number;
  }
  /// What other services are told.
  bool is_sampled() const noexcept { return sampled == Sampled::yes; }
  std::uint8_t trace_flags() const noexcept { return is_sampled() ? trace_flag_sampled : 0; }
};

#if defined(__GNUC__)
[[gnu::tls_model("initial-exec")]]
#endif
extern constinit thread_local Active thread_active;

/// The calling thread's.
inline Active& current_active() noexcept {
#if defined(SPILLWAY_SANITIZED)
  // The linker turns the addition that makes this address into one that sets no flags, and g++ 12
  // has UndefinedBehaviorSanitizer's test for null read them.
  Active* here = &thread_active;
  asm("" : "+r"(here));
  return *here;
#else
  return thread_active;
#endif
}

/// A number that no other context of this process has.
std::uint64_t next_context_serial() noexcept;
/// The number of a tenant or user name, to find its series by; 0 for an empty name. Names past the
/// first million, or past 64 MiB of them, share one. The text of a number from it.
std::uint32_t intern_identity(std::string_view name) noexcept;
/// Finds out, and keeps, the number of the calling thread's tenant (or user), which is
/// identity_unasked. Only a metric that has it as a dimension asks: names are kept for ever.
[[gnu::cold]] std::uint32_t ask_identity_number(bool tenant) noexcept;
std::string_view identity_of(std::uint32_t number) noexcept;

class Lane;
/// Writes who the records behind it belong to into the lane's ring. False when the ring is full.
/// `lane` is entered.
bool write_context(Lane& lane, const Active& context, bool urgent) noexcept;

}  // namespace detail

/// A request's identity and place in its trace, as a value: copy it to carry it to another thread,
/// coroutine or callback.
class Context {
 public:
  explicit Context(const ContextFields& fields);

  /// The calling thread's, with its innermost span as the parent of what is begun under the copy.
  static Context current();
  /// Inside a Scope of this context: moves it on to where in the trace the calling thread is, so that
  /// what begins under it from now on, on any thread, is a child of the thread's innermost span.
  void follow() noexcept { state_ = detail::current_active(); }

  std::string_view tenant() const noexcept { return identity_.tenant.view(); }
  std::string_view user() const noexcept { return identity_.user.view(); }
  std::string_view request_id() const noexcept { return identity_.request_id.view(); }
  const TraceId& trace_id() const noexcept { return state_.trace_id; }

 private:
  friend class Scope;
  friend class Engine;
  Context() = default;
  detail::Identity identity_;
  detail::Active state_;
};

/// Makes a context the calling thread's until the end of the block. Scopes nest. The context must
/// outlive the scope.
class [[nodiscard]] Scope {
 public:
  explicit Scope(const Context& context) noexcept : before_(detail::current_active()) {
    detail::current_active() = context.state_;
    detail::current_active().identity = &context.identity_;
  }
  explicit Scope(Context&&) = delete;
  Scope(const Scope&) = delete;
  Scope& operator=(const Scope&) = delete;
  ~Scope() { detail::current_active() = before_; }

 private:
  const detail::Active before_;
};

}  // namespace spillway
