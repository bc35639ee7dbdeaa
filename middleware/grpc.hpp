// SPDX-License-Identifier: Apache-2.0
//
// A chain (chain.hpp) around every call of a gRPC server, and traces, metrics and context out of a
// client, as interceptors. The one header that needs its library: include it where grpc++ is.
//
//   std::vector<std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>> interceptors;
//   interceptors.push_back(std::make_unique<GrpcServerInterceptors<Chain>>(chain));
//   builder.experimental().SetInterceptorCreators(std::move(interceptors));
//
// A call is a POST of its path ("/shop.Orders/Get"), which a route names; its metadata are headers. Its
// deadline is found as X-Request-Timeout and as grpc-timeout. The status is the HTTP one of its code, by
// google.rpc.Code; steps' replies go the way back.
//
// What gRPC's interceptors cannot do: keep a handler from running. A call that a step refuses ends with
// the step's status whatever the handler says; a handler that costs something asks first:
//
//   if (const auto refused = grpc_refusal()) return *refused;
//
// For synchronous handlers and such with callbacks, not for completion queues: before the status is sent
// the interceptor asks IsCancelled(), which there ends the process unless the server called
// AsyncNotifyWhenDone() for the call (grpc#18929).
//
// A handler with callbacks runs on threads that know nothing of its call: with
// GrpcHandlers::asynchronous it says which (`grpc_refusal(context)`), and enters it for each piece of work:
//
//   const auto current = grpc_exchange(context)->enter();
#pragma once

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>

#include <grpcpp/grpcpp.h>
#include <grpcpp/support/client_interceptor.h>
#include <grpcpp/support/server_interceptor.h>

#include <spillway/engine/engine.hpp>
#include <spillway/middleware/chain.hpp>
#include <spillway/middleware/resilience/deadline.hpp>
#include <spillway/transport/text.hpp>

namespace spillway::middleware {

/// google/rpc/code.proto, "HTTP Mapping".
inline int http_status_of(grpc::StatusCode code) noexcept {
  switch (code) {
    case grpc::StatusCode::OK:
      return 200;
    case grpc::StatusCode::CANCELLED:
      return status_client_closed_request;
    case grpc::StatusCode::INVALID_ARGUMENT:
    case grpc::StatusCode::FAILED_PRECONDITION:
    case grpc::StatusCode::OUT_OF_RANGE:
      return 400;
    case grpc::StatusCode::UNAUTHENTICATED:
      return 401;
    case grpc::StatusCode::PERMISSION_DENIED:
      return 403;
    case grpc::StatusCode::NOT_FOUND:
      return 404;
    case grpc::StatusCode::ALREADY_EXISTS:
    case grpc::StatusCode::ABORTED:
      return 409;
    case grpc::StatusCode::RESOURCE_EXHAUSTED:
      return 429;
    case grpc::StatusCode::UNIMPLEMENTED:
      return 501;
    case grpc::StatusCode::UNAVAILABLE:
      return 503;
    case grpc::StatusCode::DEADLINE_EXCEEDED:
      return 504;
    default:  // UNKNOWN, INTERNAL, DATA_LOSS
      return 500;
  }
}

/// The code that comes back to the same HTTP status, or to its class.
inline grpc::StatusCode grpc_code_of(int status) noexcept {
  switch (status) {
    case 401:
      return grpc::StatusCode::UNAUTHENTICATED;
    case 403:
      return grpc::StatusCode::PERMISSION_DENIED;
    case 404:
      return grpc::StatusCode::NOT_FOUND;
    case 409:
      return grpc::StatusCode::ABORTED;
    case 429:
      return grpc::StatusCode::RESOURCE_EXHAUSTED;
    case status_client_closed_request:
      return grpc::StatusCode::CANCELLED;
    case 501:
      return grpc::StatusCode::UNIMPLEMENTED;
    case 503:
      return grpc::StatusCode::UNAVAILABLE;
    case 504:
      return grpc::StatusCode::DEADLINE_EXCEEDED;
    default:
      return status < 400   ? grpc::StatusCode::OK
             : status < 500 ? grpc::StatusCode::INVALID_ARGUMENT
                            : grpc::StatusCode::INTERNAL;
  }
}

namespace detail {

inline constinit thread_local Exchange* grpc_current = nullptr;

/// The calls under way of servers with asynchronous handlers, by their context: gRPC lets nothing else be
/// found from there. Any thread.
class GrpcCalls {
 public:
  static GrpcCalls& of_process() {
    static GrpcCalls calls;
    return calls;
  }
  void add(const grpc::ServerContextBase* context, Exchange& exchange) {
    Shard& shard = of(context);
    const std::scoped_lock lock(shard.mutex);
    shard.exchanges[context] = &exchange;
  }
  void remove(const grpc::ServerContextBase* context) noexcept {
    Shard& shard = of(context);
    const std::scoped_lock lock(shard.mutex);
    shard.exchanges.erase(context);
  }
  Exchange* find(const grpc::ServerContextBase* context) noexcept {
    Shard& shard = of(context);
    const std::scoped_lock lock(shard.mutex);
    const auto found = shard.exchanges.find(context);
    return found != shard.exchanges.end() ? found->second : nullptr;
  }

 private:
  struct Shard {  // So that calls seldom meet.
    std::mutex mutex;
    std::unordered_map<const grpc::ServerContextBase*, Exchange*> exchanges;
  };
  Shard& of(const grpc::ServerContextBase* context) noexcept {
    const std::size_t mixed = std::hash<const void*>{}(context) >> 8U;  // The low bits are alike.
    return shards_[mixed % shards_.size()];
  }
  std::array<Shard, 16> shards_;
};

/// "ipv4:10.0.0.7:4711", "ipv6:%5B2001:db8::1%5D:4711" without scheme and port. Others as they are.
inline std::string grpc_peer_address(std::string_view peer) {
  const bool v6 = peer.starts_with("ipv6:");
  if (!v6 && !peer.starts_with("ipv4:")) return std::string(peer);
  peer.remove_prefix(5);
  peer = peer.substr(0, peer.rfind(':'));
  if (peer.starts_with("%5B") && peer.ends_with("%5D")) peer = peer.substr(3, peer.size() - 6);
  if (peer.starts_with('[') && peer.ends_with(']')) peer = peer.substr(1, peer.size() - 2);
  return std::string(peer.substr(0, peer.find('%')));
}

inline grpc::Status grpc_status_of(const Exchange& exchange) {
  const int status = exchange.reply().status;
  std::string message(status_title(status));
  if (!exchange.decision.empty()) message.append(": ").append(exchange.decision);
  return {grpc_code_of(status), message};
}

/// The headers of a call: its metadata, and its deadline, which gRPC takes out of them.
struct GrpcHeaders {
  using Metadata = std::multimap<grpc::string_ref, grpc::string_ref>;

  static std::string_view find(const void* message, std::string_view name, std::size_t nth) {
    const auto& self = *static_cast<const GrpcHeaders*>(message);
    if (self.timeout && nth == 0 &&
        (transport::equal_without_case(name, timeout_header_name) ||
         transport::equal_without_case(name, grpc_timeout_header_name)))
      return self.timeout->view();
    for (const auto& [key, value] : *self.metadata) {
      if (transport::equal_without_case({key.data(), key.size()}, name) && nth-- == 0)
        return {value.data() != nullptr ? value.data() : "", value.size()};
    }
    return {};
  }

  const Metadata* metadata = nullptr;
  std::optional<TimeoutText> timeout;
};

/// Adds what metadata may hold: printable ASCII (gRPC over HTTP/2, "ASCII-Value"). A value that a
/// client may have chosen may be anything else, and the library would end the process for it: left out.
template <class Metadata>
void grpc_add(Metadata& metadata, std::string_view name, std::string_view value) {
  const auto fits = [](char c) { return c >= ' ' && c <= '~'; };
  if (!value.empty() && std::all_of(value.begin(), value.end(), fits))
    metadata.emplace(transport::lower(name), std::string(value));
}

}  // namespace detail

/// The call that the calling thread handles; null in servers with asynchronous handlers.
inline Exchange* grpc_exchange() noexcept { return detail::grpc_current; }
/// The call of a context, on any thread, until the call ends; null where handlers are not asynchronous.
inline Exchange* grpc_exchange(const grpc::ServerContextBase* context) noexcept {
  return detail::GrpcCalls::of_process().find(context);
}

/// What a handler returns at once: a step has refused its call. Nothing: it has not.
inline std::optional<grpc::Status> grpc_refusal(const Exchange* exchange = grpc_exchange()) {
  if (exchange == nullptr || !exchange->has_reply()) return std::nullopt;
  return detail::grpc_status_of(*exchange);
}
inline std::optional<grpc::Status> grpc_refusal(const grpc::ServerContextBase* context) {
  return grpc_refusal(grpc_exchange(context));
}

/// Whether a call's handler runs on the thread that its interceptors ran on before: then the call's
/// context is the thread's meanwhile.
enum class GrpcHandlers : std::uint8_t { synchronous, asynchronous };

/// One call. Made by GrpcServerInterceptors, owned by gRPC.
template <class Chain>
class GrpcServerInterceptor final : public grpc::experimental::Interceptor {
 public:
  using Points = grpc::experimental::InterceptionHookPoints;

  GrpcServerInterceptor(const Chain& chain, GrpcHandlers handlers,
                        grpc::experimental::ServerRpcInfo& info) noexcept
      : chain_(chain), handlers_(handlers), info_(info) {}
  ~GrpcServerInterceptor() override {
    leave();
    if (listed_ != nullptr) detail::GrpcCalls::of_process().remove(listed_);
    if (exchange_ && sent_) exchange_->finish(facts_);
  }

  void Intercept(grpc::experimental::InterceptorBatchMethods* methods) override {
    const auto at = [&](Points point) { return methods->QueryInterceptionHookPoint(point); };
    if (at(Points::POST_RECV_INITIAL_METADATA)) begin();
    if (exchange_) {
      if (at(Points::PRE_SEND_STATUS)) decide(*methods);
      if (at(Points::PRE_SEND_INITIAL_METADATA)) {
        add_headers(*methods->GetSendInitialMetadata());
      } else if (at(Points::PRE_SEND_STATUS)) {  // The initial ones went before.
        add_headers(*methods->GetSendTrailingMetadata());
      }
      if (at(Points::POST_RECV_CLOSE) && sent_) exchange_->finish(facts_);
    }
    methods->Proceed();
  }

 private:
  void begin() {
    grpc::ServerContextBase& context = *info_.server_context();
    const auto now = std::chrono::steady_clock::now();
    headers_.metadata = &context.client_metadata();
    if (context.deadline() != std::chrono::system_clock::time_point::max())
      headers_.timeout.emplace(context.deadline() - std::chrono::system_clock::now());
    peer_ = detail::grpc_peer_address(context.peer());
    const grpc::string_ref authority = context.ExperimentalGetAuthority();
    RequestView view{.method = "POST",
                     .path = info_.method(),
                     .host = {authority.data(), authority.size()},
                     .peer_address = peer_,
                     .headers = {&headers_, detail::GrpcHeaders::find},
                     .body_hidden = true};
    Exchange& exchange = chain_.begin(exchange_, view, now);
    if (handlers_ == GrpcHandlers::asynchronous) {
      detail::GrpcCalls::of_process().add(&context, exchange);
      listed_ = &context;
      return;
    }
    if (exchange.context != nullptr) scope_.emplace(*exchange.context);
    detail::grpc_current = &exchange;
    entered_ = true;
  }

  void decide(grpc::experimental::InterceptorBatchMethods& methods) {
    facts_.status = http_status_of(methods.GetSendStatus().error_code());
    if (info_.server_context()->IsCancelled()) {  // The client left, or its deadline is over.
      exchange_->cancel();
      facts_ = {.status = status_client_closed_request, .ending = Ending::cancelled};
    }
    if (!exchange_->has_reply()) exchange_->respond(facts_);
    if (exchange_->has_reply() && !exchange_->reply().body_only) {
      facts_.status = exchange_->reply().status;
      methods.ModifySendStatus(detail::grpc_status_of(*exchange_));
    }
    sent_ = true;
    leave();
  }

  template <class Metadata>
  void add_headers(Metadata& metadata) {
    const auto fields = exchange_->headers();
    for (; headers_sent_ < fields.size(); ++headers_sent_)
      detail::grpc_add(metadata, fields[headers_sent_].name, fields[headers_sent_].value);
  }

  void leave() noexcept {
    if (!std::exchange(entered_, false)) return;
    scope_.reset();
    detail::grpc_current = nullptr;
  }

  const Chain& chain_;
  const GrpcHandlers handlers_;
  grpc::experimental::ServerRpcInfo& info_;
  detail::GrpcHeaders headers_;
  std::string peer_;
  ResponseFacts facts_;
  bool sent_ = false;
  bool entered_ = false;
  std::size_t headers_sent_ = 0;
  const grpc::ServerContextBase* listed_ = nullptr;  // in GrpcCalls, as its key
  std::optional<typename Chain::Exchange> exchange_;
  std::optional<Scope> scope_;
};

/// For ServerBuilder. The chain outlives the server.
template <class Chain>
class GrpcServerInterceptors final : public grpc::experimental::ServerInterceptorFactoryInterface {
 public:
  explicit GrpcServerInterceptors(const Chain& chain,
                                  GrpcHandlers handlers = GrpcHandlers::synchronous) noexcept
      : chain_(chain), handlers_(handlers) {}
  grpc::experimental::Interceptor* CreateServerInterceptor(
      grpc::experimental::ServerRpcInfo* info) override {
    return new GrpcServerInterceptor<Chain>(chain_, handlers_, *info);
  }

 private:
  const Chain& chain_;
  const GrpcHandlers handlers_;
};

/// Of the calls of one channel: a remote subsegment each, with its trace in the metadata, and the
/// metrics RpcCalls, RpcErrors (every code but OK) and RpcLatency (microseconds) by Method.
///
///   std::vector<std::unique_ptr<grpc::experimental::ClientInterceptorFactoryInterface>> interceptors;
///   interceptors.push_back(std::make_unique<GrpcClientInterceptors>(engine));
///   grpc::experimental::CreateCustomChannelWithInterceptors(..., std::move(interceptors));
///
/// `engine` outlives the channel. Any thread.
class GrpcClientInterceptors final : public grpc::experimental::ClientInterceptorFactoryInterface {
 public:
  /// context  the caller's tenant and request id go along, as x-tenant-id and x-request-id: to
  ///          services of one's own
  explicit GrpcClientInterceptors(Engine& engine, bool context = true)
      : engine_(engine), context_(context) {}

  grpc::experimental::Interceptor* CreateClientInterceptor(
      grpc::experimental::ClientRpcInfo* info) override {
    return new Call(engine_, handles_of(info->method()), info->method(), context_);
  }

  /// Methods that are told apart; the rest is "(other)".
  static constexpr std::size_t methods_max = 1000;

 private:
  struct Handles {
    SpanName span;
    Counter calls;
    Counter errors;
    Histogram latency;
  };

  class Call final : public grpc::experimental::Interceptor {
   public:
    Call(Engine& engine, const Handles& handles, const char* method, bool context)
        : engine_(engine), handles_(handles), method_(method), propagate_(context) {}
    ~Call() override { end(499); }  // A call without a status was given up.

    void Intercept(grpc::experimental::InterceptorBatchMethods* methods) override {
      using Points = grpc::experimental::InterceptionHookPoints;
      if (methods->QueryInterceptionHookPoint(Points::PRE_SEND_INITIAL_METADATA))
        begin(*methods->GetSendInitialMetadata());
      if (methods->QueryInterceptionHookPoint(Points::POST_RECV_STATUS))
        end(http_status_of(methods->GetRecvStatus()->error_code()));
      methods->Proceed();
    }

   private:
    void begin(std::multimap<std::string, std::string>& metadata) {
      begun_ = std::chrono::steady_clock::now();
      context_.emplace(Context::current());
      const Scope scope(*context_);
      Span& span = span_.emplace(InPlace{[&] { return engine_.span(handles_.span); }});
      span.remote();
      span.http_request({.method = "POST", .url = method_});
      const OutgoingTrace trace = current_trace_headers();
      detail::grpc_add(metadata, trace_header_name, trace.xray);
      detail::grpc_add(metadata, traceparent_name, trace.traceparent);
      detail::grpc_add(metadata, tracestate_name, trace.tracestate);
      span.detach();
      if (!propagate_) return;
      detail::grpc_add(metadata, "x-tenant-id", context_->tenant());
      detail::grpc_add(metadata, "x-request-id", context_->request_id());
    }
    void end(int status) noexcept {
      if (!span_ || std::exchange(ended_, true)) return;
      const Scope scope(*context_);
      const auto took = std::chrono::steady_clock::now() - begun_;
      handles_.calls.add(1U);
      if (status != 200) handles_.errors.add(1U);
      handles_.latency.record(std::chrono::duration<double, std::micro>(took).count());
      span_->http_response(status);
      span_->end();
    }

    Engine& engine_;
    const Handles& handles_;
    const char* const method_;
    const bool propagate_;
    bool ended_ = false;
    SteadyTime begun_;
    std::optional<Context> context_;
    std::optional<Span> span_;
  };

  const Handles& handles_of(std::string_view method) {
    const std::scoped_lock lock(mutex_);
    auto found = handles_.find(method);
    if (found == handles_.end() && handles_.size() >= methods_max) {
      method = "(other)";
      found = handles_.find(method);
    }
    if (found == handles_.end()) {
      const Dimensions dimensions{{"Method", std::string(method)}};
      found = handles_
                  .emplace(std::string(method),
                           Handles{engine_.span_name(method),
                                   engine_.counter("RpcCalls", Unit::count, dimensions),
                                   engine_.counter("RpcErrors", Unit::count, dimensions),
                                   engine_.histogram("RpcLatency", Unit::microseconds, dimensions)})
                  .first;
    }
    return found->second;
  }

  Engine& engine_;
  const bool context_;
  std::mutex mutex_;
  std::map<std::string, Handles, std::less<>> handles_;  // whose places stay
};

}  // namespace spillway::middleware
