// SPDX-License-Identifier: Apache-2.0
//
// Steps around a handler, composed when the program is compiled: no virtual call, no allocation.
// Every step has its work split into phases instead of wrapping a call, so that the same step serves
// synchronous, callback and coroutine servers.
//
//   class MyStep {
//    public:
//     struct State {};                                   // of one request; default constructible
//     Verdict before(State&, Exchange&);                 // may end the request with a reply
//     void respond(State&, Exchange&, const ResponseFacts&);      // the response is about to go out
//     void after(State&, const Exchange&, const ResponseFacts&) noexcept;  // it was sent, or not
//     Verdict resumed(State&, Exchange&);              // after a Verdict::wait of before(), or of this
//   };                                                   // phases that are not needed are left out
//
// A step that says wait without resumed(), or where no request can, ends the request with 500. A request
// that ends while it waits does so by the end of the step's State, which leaves the queue.
//
//   Chain chain(routes, observability, limiter);         // set up once; steps by reference
//   ...
//   auto exchange = chain.begin(view);                   // before(), in order, until one replies
//   if (!exchange.has_reply()) {
//     exchange.guard([&] {                               // what is thrown becomes the reply
//       response = handle(...);                          // its logs and spans belong to the request
//       exchange.respond({.status = ...});               // respond(), in reverse order
//     });
//   }
//   ... with a RequestView::resumer exchange.is_waiting() comes first: resume() when it calls, then on ...
//   ... send exchange.reply() if there is one, else the response; with exchange.headers() ...
//   exchange.finish({.status = ..., .body_bytes = ...});  // after(), in reverse order
//
// Which steps take part: respond() and after() run for those whose before() ran and proceeded.
//
// An exchange that is destroyed without finish() ended without a response: its steps see status 500
// and Ending::failed when an exception unwinds or was given to fail(), else, and after cancel(), 499 and
// Ending::cancelled.
//
// Threads: the chain and its steps are shared by all of the server's; an exchange has one at a time.
#pragma once

#include <chrono>
#include <concepts>
#include <cstddef>
#include <exception>
#include <memory>
#include <optional>
#include <tuple>
#include <type_traits>
#include <utility>

#include <spillway/middleware/exchange.hpp>

namespace spillway::middleware {

template <class Step>
concept HasBefore = requires(Step& step, typename Step::State& state, Exchange& exchange) {
  { step.before(state, exchange) } -> std::same_as<Verdict>;
};
template <class Step>
concept HasRespond = requires(Step& step, typename Step::State& state, Exchange& exchange,
                              const ResponseFacts& facts) {
  step.respond(state, exchange, facts);
};
template <class Step>
concept HasResumed = requires(Step& step, typename Step::State& state, Exchange& exchange) {
  { step.resumed(state, exchange) } -> std::same_as<Verdict>;
};
template <class Step>
concept HasAfter = requires(Step& step, typename Step::State& state, const Exchange& exchange,
                            const ResponseFacts& facts) {
  { step.after(state, exchange, facts) }
  noexcept;
};

/// What a class must have to stand in a chain. A member with a phase's name that cannot be called as
/// that phase is refused here too: it would never run.
template <class Step>
concept ChainStep = std::default_initializable<typename Step::State> &&
                    (HasBefore<Step> || HasRespond<Step> ||
                     HasAfter<Step>)&&(HasBefore<Step> || !requires { &Step::before; }) &&
                    (HasRespond<Step> || !requires { &Step::respond; }) &&
                    (HasAfter<Step> || !requires { &Step::after; }) &&
                    (HasResumed<Step> || !requires { &Step::resumed; });

/// Makes an object that cannot be moved where it is to stay: what `make()` returns is made there, by
/// std::optional::emplace(InPlace{make}) for one.
template <class Make>
struct InPlace {
  Make make;
  operator decltype(make())() const {  // NOLINT(google-explicit-constructor): that is its purpose
    return make();
  }
};
template <class Make>
InPlace(Make) -> InPlace<Make>;

/// A request in a chain. Stays where begin() made it, until the end of the request.
template <ChainStep... Steps>
class ChainExchange final : public Exchange {
 public:
  ~ChainExchange() {
    if (finished_) return;
    const bool failed =
        !cancelled() && (!exception().type.empty() || std::uncaught_exceptions() > unwinding_);
    finish({.status = failed ? 500 : status_client_closed_request,
            .ending = failed ? Ending::failed : Ending::cancelled});
  }

  /// A step lets the request wait: neither handler nor reply yet, only resume(), or the end.
  bool is_waiting() const noexcept { return waiting_; }
  /// Goes on with the step that has called for it, and those behind; then it may be waiting again.
  void resume() noexcept {
    if (!std::exchange(waiting_, false)) return;
    try {
      if (!resume_from(std::index_sequence_for<Steps...>{}) && !waiting_) end_early();
    } catch (...) {
      fail(std::current_exception());
      end_early();
    }
  }

  /// The request is to be answered now after all: it leaves the step's queue, and is refused with 503.
  void stop_waiting() noexcept {
    if (leave_queue()) refuse(503, {}, "answered while it waited");
  }

  /// The handler's response is known and nothing of it was sent. A step may add headers, or give a
  /// reply in its place. An exception of a step is as one of the handler. Not for a reply: steps see
  /// those in after() only. Once.
  void respond(const ResponseFacts& facts) noexcept {
    try {
      respond_from(facts, std::index_sequence_for<Steps...>{});
    } catch (...) {
      fail(std::current_exception());
    }
  }

  /// The response was sent, or could not be. Further calls do nothing.
  void finish(const ResponseFacts& facts,
              SteadyTime now = std::chrono::steady_clock::now()) noexcept {
    if (finished_) return;
    finished_ = true;
    ended = now;
    leave_queue();
    after_from(facts, std::index_sequence_for<Steps...>{});
  }

 private:
  template <ChainStep... Others>
  friend class Chain;

  ChainExchange(const RequestView& view, const Route& matched, SteadyTime now,
                const std::tuple<Steps&...>& steps) noexcept
      : Exchange(view, matched, now), steps_(steps) {
    try {
      if (!before_from(std::index_sequence_for<Steps...>{}) && !waiting_) end_early();
    } catch (...) {
      fail(std::current_exception());
      end_early();
    }
  }

  template <std::size_t I>
  bool before_one() {
    using Step = std::tuple_element_t<I, std::tuple<Steps...>>;
    if constexpr (HasBefore<Step>) {
      if (!goes_on<Step>(std::get<I>(steps_).before(std::get<I>(states_), *this))) return false;
    }
    entered_ = I + 1;
    return true;
  }
  template <class Step>
  bool goes_on(Verdict verdict) noexcept {
    if (verdict == Verdict::proceed) [[likely]]
      return true;
    if (verdict == Verdict::wait && HasResumed<Step> && can_wait()) {
      waiting_ = true;
    } else if (verdict == Verdict::wait) {  // Nobody would go on: no way past the steps behind.
      refuse(500, {}, "a step waits that cannot");
    } else if (!has_reply()) {
      refuse(500, {}, "a step ends without a reply");
    }
    return false;
  }
  /// The step that waits gets a new State: the end of the old one gives up what it stands in line for.
  bool leave_queue() noexcept {
    if (!std::exchange(waiting_, false)) [[likely]]
      return false;
    end_early();
    leave_from(std::index_sequence_for<Steps...>{});
    return true;
  }
  template <std::size_t... I>
  void leave_from(std::index_sequence<I...> /*order*/) noexcept {
    (leave_one<I>(), ...);
  }
  template <std::size_t I>
  void leave_one() noexcept {
    if constexpr (HasResumed<std::tuple_element_t<I, std::tuple<Steps...>>>) {
      if (I != entered_) return;
      std::destroy_at(&std::get<I>(states_));
      std::construct_at(&std::get<I>(states_));
    }
  }
  template <std::size_t I>
  bool resume_one() {
    using Step = std::tuple_element_t<I, std::tuple<Steps...>>;
    if (I < entered_) return true;
    if constexpr (HasResumed<Step>) {
      if (std::exchange(resumes_, false)) {
        if (!goes_on<Step>(std::get<I>(steps_).resumed(std::get<I>(states_), *this))) return false;
        entered_ = I + 1;
        return true;
      }
    }
    return before_one<I>();
  }
  template <std::size_t I>
  void respond_one(const ResponseFacts& facts) {
    using Step = std::tuple_element_t<I, std::tuple<Steps...>>;
    if constexpr (HasRespond<Step>) {
      if (I < entered_) std::get<I>(steps_).respond(std::get<I>(states_), *this, facts);
    }
  }
  template <std::size_t I>
  void after_one(const ResponseFacts& facts) noexcept {
    using Step = std::tuple_element_t<I, std::tuple<Steps...>>;
    if constexpr (HasAfter<Step>) {
      if (I < entered_) std::get<I>(steps_).after(std::get<I>(states_), *this, facts);
    }
  }
  template <std::size_t... I>
  bool before_from(std::index_sequence<I...> /*order*/) {
    return (before_one<I>() && ...);
  }
  template <std::size_t... I>
  bool resume_from(std::index_sequence<I...> /*order*/) {
    resumes_ = true;
    return (resume_one<I>() && ...);
  }
  template <std::size_t... I>
  void respond_from(const ResponseFacts& facts, std::index_sequence<I...> /*order*/) {
    (respond_one<sizeof...(Steps) - 1 - I>(facts), ...);
  }
  template <std::size_t... I>
  void after_from(const ResponseFacts& facts, std::index_sequence<I...> /*order*/) noexcept {
    (after_one<sizeof...(Steps) - 1 - I>(facts), ...);
  }

  const std::tuple<Steps&...>& steps_;
  std::tuple<typename Steps::State...> states_;
  std::size_t entered_ = 0;
  const int unwinding_ = std::uncaught_exceptions();
  bool finished_ = false;
  bool waiting_ = false;
  bool resumes_ = false;
};

template <ChainStep... Steps>
class Chain {
 public:
  /// Routes and steps outlive the chain.
  explicit Chain(const Routes& routes, Steps&... steps) noexcept
      : routes_(routes), steps_(steps...) {}
  Chain(const Chain&) = delete;
  Chain& operator=(const Chain&) = delete;

  using Exchange = ChainExchange<Steps...>;

  /// Begins a request. Never throws: an exception of a step makes its reply (status 500). Everything
  /// that `view` points to, and the chain, outlive the exchange.
  [[nodiscard]] Exchange begin(const RequestView& view,
                               SteadyTime now = std::chrono::steady_clock::now()) const noexcept {
    return Exchange(view, route_of(view), now, steps_);
  }

  /// The same in a session object, in place of the connection's request before, which is ended first.
  Exchange& begin(std::optional<Exchange>& place, const RequestView& view,
                  SteadyTime now = std::chrono::steady_clock::now()) const noexcept {
    place.reset();
    return place.emplace(InPlace{[&] { return begin(view, now); }});
  }

  const Routes& routes() const noexcept { return routes_; }

 private:
  // Steps keep what they know of a route by its number: one of a larger table has no place there.
  const Route& route_of(const RequestView& view) const noexcept {
    if (view.route == nullptr) return routes_.match(view.method, view.path);
    return view.route->number < routes_.all().size() ? *view.route : routes_.unmatched();
  }

  const Routes& routes_;
  const std::tuple<Steps&...> steps_;
};

template <class... Steps>
Chain(const Routes&, Steps&...) -> Chain<Steps...>;

}  // namespace spillway::middleware
