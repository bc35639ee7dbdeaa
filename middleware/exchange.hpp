// SPDX-License-Identifier: Apache-2.0
//
// A request on its way through a chain of steps (chain.hpp), whatever the framework: what came in
// (RequestView), what the steps know of it (Exchange), what went out (ResponseFacts). Views and
// values only, so that an adapter copies nothing and a request allocates nothing.
//
// An Exchange is used by one thread at a time; which one may change between begin, respond and
// finish. Every view that goes in must live until the exchange is finished: the request's own
// buffers do, and what does not is copied by keep().
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

#include <spillway/engine/clock.hpp>
#include <spillway/engine/context.hpp>
#include <spillway/middleware/routes.hpp>

namespace spillway::middleware {

/// The header fields of a framework's message, looked up where they are. Two words: pass by value.
class Headers {
 public:
  /// The value of the `nth` field named `name` (compared without case), 0 being the first; a view
  /// whose data() is null when there is none.
  using Find = std::string_view (*)(const void* message, std::string_view name, std::size_t nth);

  constexpr Headers() = default;
  constexpr Headers(const void* message, Find how) noexcept : message_(message), find_(how) {}

  /// Empty when absent. Of several fields of one name the first, which is what the client itself may
  /// have sent: walk over all of them with `nth` where proxies append.
  std::string_view find(std::string_view name, std::size_t nth = 0) const {
    return find_ == nullptr ? std::string_view{} : find_(message_, name, nth);
  }
  bool contains(std::string_view name) const { return find(name).data() != nullptr; }

 private:
  const void* message_ = nullptr;
  Find find_ = nullptr;
};

/// One field of a list.
struct HeaderField {
  std::string_view name;
  std::string_view value;
};
/// Headers that stand in a contiguous list. The list outlives the result.
Headers headers_of(const std::span<const HeaderField>& list) noexcept;

/// How an adapter hears that a request goes on that a step lets wait (Verdict::wait): `call(object)`, once for
/// each wait, on any thread, perhaps before Chain::begin() has returned. It hands over to the request's
/// own executor, where ChainExchange::resume() is called; and does nothing when the request is gone.
struct Resumer {
  void (*call)(void* object) noexcept = nullptr;
  void* object = nullptr;
};

/// What a framework knows of a request when its header has been read. Non-owning.
struct RequestView {
  std::string_view method{};
  std::string_view path{};   ///< without query, as received (percent-encoded)
  std::string_view query{};  ///< without the question mark
  std::string_view scheme = "http";
  std::string_view host{};          ///< the Host header or :authority
  std::string_view peer_address{};  ///< of the connection, without port
  Headers headers{};
  std::string_view body{};       ///< as far as it has been read; for body logging
  std::int64_t body_bytes = -1;  ///< its whole length; below 0: unknown
  /// There may be a body that the framework shows to no step: nothing can be said of its bytes.
  bool body_hidden = false;
  /// Set by frameworks that route before the chain runs; null: the chain matches method and path.
  const Route* route = nullptr;
  /// Set by adapters that can let a request wait without holding a thread.
  Resumer resumer{};

  /// Sets path and query from a request target in origin form ("/orders?page=2") or absolute form
  /// ("http://shop/orders?page=2"); of another form ("*") it becomes the path.
  void target(std::string_view text) noexcept;
  std::string_view header(std::string_view name) const { return headers.find(name); }
};

/// How an exchange ended.
enum class Ending : std::uint8_t {
  sent,       ///< the response was handed to the connection whole
  broken,     ///< the connection broke, or timed out, while the response was written
  cancelled,  ///< no response: the client went away or the server gave up
  failed      ///< no response: an exception went through
};

/// What was really sent.
struct ResponseFacts {
  int status = 200;
  std::int64_t body_bytes = -1;     ///< below 0: unknown
  std::string_view body{};          ///< as far as it is at hand; for body logging
  std::string_view content_type{};  ///< of `body`
  Ending ending = Ending::sent;
};

/// The status of a request that ended without a response because its client closed the connection
/// (nginx's 499; no status of HTTP).
inline constexpr int status_client_closed_request = 499;

/// What a step says in before(): on to the next step; an end here with the exchange's reply; or, of an
/// exchange that can_wait(), to be asked again, by resumed(), after the step's resume_later().
enum class Verdict : std::uint8_t { proceed, reply, wait };

/// A response that a step gives in place of the handler's. Headers are the exchange's.
struct Reply {
  int status = 0;  ///< 0: there is none
  std::string_view content_type{};
  std::string_view body{};
  bool body_only = false;  ///< the handler's other headers stay; status is the handler's
};

/// The fields that speak of a body (RFC 9110, 8, 14.4; RFC 9530): those of the handler's go with it
/// when a reply takes its place. A compressed body's Content-Encoding over plain text would make it
/// unreadable.
inline constexpr std::array<std::string_view, 11> body_header_names{
    "Content-Type",     "Content-Length",   "Content-Encoding",
    "Content-Language", "Content-Location", "Content-Range",
    "Content-Digest",   "Repr-Digest",      "ETag",
    "Last-Modified",    "Transfer-Encoding"};

/// Who may be shed first when there is too much to do.
enum class Priority : std::uint8_t { critical, normal, sheddable };

/// An exception that ended a handler or a step. Texts live in the exchange.
struct ExceptionFacts {
  std::string_view type{};     ///< demangled; empty: there was none
  std::string_view message{};  ///< what(), cut at exception_message_bytes_max; not for clients
};

/// What a handler throws to answer with an error: a problem document with this status, and `detail` for
/// the client. Below 500 it is an answer like any other; from 500 on steps see an exception too.
class HttpError : public std::runtime_error {
 public:
  /// status  400 to 599; another one counts as 500
  explicit HttpError(int status, const std::string& detail = {})
      : std::runtime_error(detail), status_(status >= 400 && status <= 599 ? status : 500) {}
  int status() const noexcept { return status_; }

 private:
  int status_;
};

inline constexpr std::size_t exchange_text_bytes_max = 2048;
inline constexpr std::size_t response_headers_max = 24;
inline constexpr std::size_t exception_message_bytes_max = 512;

/// What the steps of a chain share of one request. Made by Chain::begin(), which adds the steps'
/// states.
class Exchange {
 public:
  Exchange(const Exchange&) = delete;
  Exchange& operator=(const Exchange&) = delete;

  const RequestView request;
  const Route& route;      ///< never the raw path: Routes::unmatched() for what no template fits
  const SteadyTime begun;  ///< one clock reading for all steps
  SteadyTime ended{};      ///< the same for after(); not set before

  // ---- What steps learn, for the steps behind them and the handler. Views, as above. ----

  std::string_view request_id{};
  std::string_view tenant{};
  std::string_view user{};
  std::string_view client_address;  ///< the peer's, until a step that trusts a proxy knows better
  SteadyTime deadline = SteadyTime::max();
  bool deadline_is_callers = false;  ///< who may have granted next to nothing
  Priority priority = Priority::normal;
  /// Why a step answered in the handler's place ("bulkhead: tenant_full"): for the access log and the
  /// segment, so that each such decision stands beside its request's trace id. Outlives the request.
  std::string_view decision{};
  /// Who and where in the trace; set by the step that owns it. What enter() makes current.
  const Context* context = nullptr;

  /// Time left until the deadline; 0 when it is over, nanoseconds::max() when there is none.
  std::chrono::nanoseconds remaining(SteadyTime now) const noexcept {
    if (deadline == SteadyTime::max()) return std::chrono::nanoseconds::max();
    return deadline > now ? deadline - now : std::chrono::nanoseconds::zero();
  }

  /// Nobody waits for the answer any more: the client closed its connection, or the server gives up.
  /// Any thread, while the exchange lives.
  void cancel() noexcept { cancelled_.store(true, std::memory_order_release); }
  bool cancelled() const noexcept { return cancelled_.load(std::memory_order_acquire); }
  /// Whether a handler should stop working: asked between its pieces of work.
  bool should_stop(SteadyTime now = std::chrono::steady_clock::now()) const noexcept {
    return cancelled() || now >= deadline;
  }

  /// Whether the adapter lets a step say Verdict::wait.
  bool can_wait() const noexcept { return request.resumer.call != nullptr; }
  /// The step that said so has what it waited for, or will not get it. Any thread, without a lock.
  void resume_later() const noexcept { request.resumer.call(request.resumer.object); }

  /// Makes the request's context (tenant, user, trace) the calling thread's until the end of the
  /// block. Around each piece of the handler that runs without a break: a callback, or a coroutine
  /// between two suspensions.
  [[nodiscard]] std::optional<Scope> enter() const noexcept {
    return context != nullptr ? std::optional<Scope>(std::in_place, *context) : std::nullopt;
  }

  // ---- Texts and headers of the response ----

  /// A copy that lives as long as the exchange. Nothing when exchange_text_bytes_max are used up.
  std::optional<std::string_view> keep(std::string_view text) noexcept {
    if (text.size() > text_.size() - text_bytes_) return std::nullopt;
    char* const at = text_.data() + text_bytes_;
    if (!text.empty()) std::memcpy(at, text.data(), text.size());
    text_bytes_ += text.size();
    return std::string_view(at, text.size());
  }
  /// Adds a field to whatever response goes out. `name` is a literal; `value` is copied. False, and
  /// nothing is added: no room, or a value with control characters, which would split the response.
  bool add_header(std::string_view name, std::string_view value) noexcept;
  /// Adds Retry-After (RFC 9110, 10.2.3): whole seconds, rounded up, 1 at least.
  void add_retry_after(std::chrono::nanoseconds wait) noexcept;
  /// The fields that the adapter copies into the response.
  std::span<const HeaderField> headers() const noexcept { return {headers_.data(), header_count_}; }

  // ---- Ending early ----

  /// Answers with a body that the step keeps alive: a literal, a part of its State, or keep().
  Verdict reply(int status, std::string_view content_type, std::string_view body) noexcept {
    reply_ = {status, content_type, body};
    return Verdict::reply;
  }
  /// Answers with a problem document (RFC 9457): type about:blank, the status, its title, `detail`
  /// for the client (cut at 512 bytes) and the request id. `why` becomes the exchange's `decision`.
  Verdict refuse(int status, std::string_view detail = {}, std::string_view why = {}) noexcept;

  /// In respond(): gives the handler's response a problem document as its body, and leaves the rest.
  void replace_body(int status) noexcept {
    refuse(status);
    reply_.body_only = true;
  }

  bool has_reply() const noexcept { return reply_.status != 0; }
  const Reply& reply() const noexcept { return reply_; }
  /// The request did not come to its handler: a step had answered, or thrown, before.
  bool ended_early() const noexcept { return ended_early_; }

  /// Runs `handle()` in the request's context. False: it threw, and fail() has made the reply.
  template <class Handle>
  bool guard(Handle&& handle) noexcept {
    try {
      const auto current = enter();
      std::forward<Handle>(handle)();
      return true;
    } catch (...) {
      fail(std::current_exception());
      return false;
    }
  }
  /// An exception came out of a handler or a step: the reply becomes a problem document with status
  /// 500 that tells the client nothing of it, and the steps find type and message in exception(). An
  /// HttpError says itself what the client is told. Never throws: a foreign exception has type
  /// "unknown".
  void fail(const std::exception_ptr& exception) noexcept;
  const ExceptionFacts& exception() const noexcept { return exception_; }

 protected:
  Exchange(const RequestView& view, const Route& matched, SteadyTime now) noexcept
      : request(view), route(matched), begun(now), client_address(view.peer_address) {}
  ~Exchange() = default;
  void end_early() noexcept { ended_early_ = true; }

 private:
  Reply reply_;
  std::atomic<bool> cancelled_{false};
  bool ended_early_ = false;
  ExceptionFacts exception_;
  std::size_t text_bytes_ = 0;
  std::size_t header_count_ = 0;
  // Left as they are: a request does not pay for what it does not use.
  union {
    std::array<HeaderField, response_headers_max> headers_;
  };
  std::array<char, exchange_text_bytes_max> text_;
};

/// "Too Many Requests" (IANA HTTP Status Code Registry); "Unknown" for a number that it has not.
std::string_view status_title(int status) noexcept;

}  // namespace spillway::middleware
