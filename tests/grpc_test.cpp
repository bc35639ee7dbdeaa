// SPDX-License-Identifier: Apache-2.0
//
// The gRPC adapter with a server and clients in one process: what its library would end the process for.
#include <atomic>
#include <functional>
#include <future>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/impl/client_unary_call.h>
#include <grpcpp/support/method_handler.h>
#include <gtest/gtest.h>
#include <support/engine_fixture.hpp>
#include <support/sent.hpp>

#include <spillway/middleware/grpc.hpp>
#include <spillway/middleware/observability.hpp>

namespace spillway::middleware {
namespace {

constexpr const char* method = "/shop.Orders/Get";
constexpr const char* cafe = "caf\xc3\xa9";

/// Answers every call with what came.
class Echo final : public grpc::Service {
 public:
  Echo() {
    using Handler = grpc::internal::RpcMethodHandler<Echo, grpc::ByteBuffer, grpc::ByteBuffer,
                                                     grpc::ByteBuffer, grpc::ByteBuffer>;
    AddMethod(new grpc::internal::RpcServiceMethod(
        method, grpc::internal::RpcMethod::NORMAL_RPC,
        new Handler(
            [](Echo*, grpc::ServerContext*, const grpc::ByteBuffer* request,
               grpc::ByteBuffer* response) {
              *response = *request;
              return grpc::Status::OK;
            },
            this)));
  }
};

/// Keeps what the view says, and says what may be in no metadata.
struct Look {
  struct State {};
  Verdict before(State& /*state*/, Exchange& exchange) {
    body_hidden = exchange.request.body_hidden;
    exchange.add_header("X-Request-ID", cafe);
    exchange.add_header("X-Plain", "yes");
    return Verdict::proceed;
  }
  bool body_hidden = false;
};

class GrpcTest : public ::testing::Test {
 protected:
  static grpc::Status call(const std::shared_ptr<grpc::Channel>& channel,
                           grpc::ClientContext& context) {
    const grpc::internal::RpcMethod get(method, grpc::internal::RpcMethod::NORMAL_RPC);
    const grpc::Slice slice("17");
    const grpc::ByteBuffer request(&slice, 1);
    grpc::ByteBuffer response;
    return grpc::internal::BlockingUnaryCall(channel.get(), get, &context, request, &response);
  }

  spillway::testing::AwsEnvironment environment;
  spillway::testing::TestEngine test{spillway::testing::aws_config()};
};

TEST_F(GrpcTest, MetadataTakesPrintableAsciiOnly) {
  std::multimap<std::string, std::string> metadata;
  detail::grpc_add(metadata, "X-Tenant-ID", "acme ~");
  detail::grpc_add(metadata, "X-Tenant-ID", cafe);
  detail::grpc_add(metadata, "X-Tenant-ID", "a\tb");
  detail::grpc_add(metadata, "X-Tenant-ID", "a\x7f");
  detail::grpc_add(metadata, "X-Tenant-ID", "");
  EXPECT_EQ(metadata, (std::multimap<std::string, std::string>{{"x-tenant-id", "acme ~"}}));
}

// A tenant comes from a header of whoever calls us.
TEST_F(GrpcTest, ATenantThatIsNotAsciiDoesNotEndTheProcess) {
  std::vector<std::unique_ptr<grpc::experimental::ClientInterceptorFactoryInterface>> interceptors;
  interceptors.push_back(std::make_unique<GrpcClientInterceptors>(test.engine));
  const auto channel = grpc::experimental::CreateCustomChannelWithInterceptors(
      "unix:/nonexistent/socket", grpc::InsecureChannelCredentials(), {}, std::move(interceptors));
  const Context context({.tenant = cafe, .request_id = cafe});
  const Scope scope(context);
  grpc::ClientContext options;
  EXPECT_EQ(call(channel, options).error_code(), grpc::StatusCode::UNAVAILABLE);
}

TEST_F(GrpcTest, AServersStepsSeeNoBodyAndMaySayAnything) {
  const Routes routes{{"POST", method}};
  Look look;
  const Chain<Look> chain(routes, look);
  Echo echo;
  grpc::ServerBuilder builder;
  builder.RegisterService(&echo);
  std::vector<std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>> interceptors;
  interceptors.push_back(std::make_unique<GrpcServerInterceptors<Chain<Look>>>(chain));
  builder.experimental().SetInterceptorCreators(std::move(interceptors));
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  grpc::ClientContext options;
  EXPECT_TRUE(call(server->InProcessChannel({}), options).ok());
  EXPECT_TRUE(look.body_hidden);
  EXPECT_EQ(options.GetServerInitialMetadata().count("x-plain"), 1U);
  EXPECT_EQ(options.GetServerInitialMetadata().count("x-request-id"), 0U);
  server->Shutdown();
}

// ---- Handlers and clients with callbacks ----

/// Answers with what came, on a thread of gRPC's, unless a step has refused.
class CallbackEcho final : public grpc::CallbackGenericService {
 public:
  explicit CallbackEcho(Engine& engine) : engine_(engine) {}
  std::atomic<int> handled{0};

 private:
  class Call final : public grpc::ServerGenericBidiReactor {
   public:
    Call(CallbackEcho& service, grpc::GenericCallbackServerContext* context)
        : service_(service), context_(context) {
      StartRead(&message_);
    }
    void OnReadDone(bool ok) override {
      if (!ok) return Finish(grpc::Status::CANCELLED);
      if (const auto refused = grpc_refusal(context_)) return Finish(*refused);
      {
        const auto current = grpc_exchange(context_)->enter();
        SPILLWAY_INFO(service_.engine_, "order found");
      }
      ++service_.handled;
      StartWriteAndFinish(&message_, {}, grpc::Status::OK);
    }
    void OnDone() override { delete this; }

   private:
    CallbackEcho& service_;
    grpc::GenericCallbackServerContext* const context_;
    grpc::ByteBuffer message_;
  };
  grpc::ServerGenericBidiReactor* CreateReactor(
      grpc::GenericCallbackServerContext* context) override {
    return new Call(*this, context);
  }

  Engine& engine_;
};

/// Refuses the tenant "late".
struct Late {
  struct State {};
  Verdict before(State& /*state*/, Exchange& exchange) {
    return exchange.request.header("X-Tenant-ID") == "late"
               ? exchange.refuse(429, "too many", "test: late")
               : Verdict::proceed;
  }
};

TEST_F(GrpcTest, HandlersAndClientsWithCallbacks) {
  const Routes routes{{"POST", method}};
  Observability observability(test.engine, routes);
  Late late;
  const Chain chain(routes, observability, late);
  CallbackEcho echo(test.engine);
  grpc::ServerBuilder builder;
  builder.RegisterCallbackGenericService(&echo);
  std::vector<std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>> interceptors;
  interceptors.push_back(
      std::make_unique<GrpcServerInterceptors<decltype(chain)>>(chain, GrpcHandlers::asynchronous));
  builder.experimental().SetInterceptorCreators(std::move(interceptors));
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  std::vector<std::unique_ptr<grpc::experimental::ClientInterceptorFactoryInterface>> own;
  own.push_back(std::make_unique<GrpcClientInterceptors>(test.engine));
  grpc::GenericStub stub(
      server->experimental().InProcessChannelWithInterceptors({}, std::move(own)));

  struct One {
    grpc::ClientContext options;
    grpc::ByteBuffer response;
    std::promise<grpc::Status> ended;
  };
  const grpc::Slice slice("17");
  const grpc::ByteBuffer request(&slice, 1);
  constexpr int each = 20;
  std::vector<std::unique_ptr<One>> calls;
  for (int i = 0; i < 2 * each; ++i) {  // All under way at once.
    One& one = *calls.emplace_back(std::make_unique<One>());
    const Context context({.tenant = i < each ? "acme" : "late"});
    const Scope scope(context);
    stub.UnaryCall(&one.options, method, {}, &request, &one.response,
                   [&one](grpc::Status status) { one.ended.set_value(std::move(status)); });
  }
  std::map<grpc::StatusCode, int> codes;
  for (const auto& one : calls) ++codes[one->ended.get_future().get().error_code()];
  EXPECT_EQ(codes, (std::map<grpc::StatusCode, int>{{grpc::StatusCode::OK, each},
                                                    {grpc::StatusCode::RESOURCE_EXHAUSTED, each}}));
  EXPECT_EQ(echo.handled, each) << "no handler works for a refused call";
  server->Shutdown();

  const spillway::testing::Sent all = spillway::testing::sent(test);
  EXPECT_EQ(all.sum(std::string("RpcCalls|") + method), 2 * each);
  EXPECT_EQ(all.sum(std::string("RpcErrors|") + method), each);
  std::map<std::string, int> traces;  // of requests that were handled
  std::map<int, int> statuses;
  for (const auto& log : all.logs) {
    if (log["message"].string() != "request") continue;
    const int status = static_cast<int>(log["status"].number());
    ++statuses[status];
    if (status == 200) traces[log["trace_id"].string()] = 0;
    EXPECT_EQ(log["tenant"].string(), status == 200 ? "acme" : "late");
  }
  EXPECT_EQ(statuses, (std::map<int, int>{{200, each}, {429, each}}));
  EXPECT_EQ(traces.size(), static_cast<std::size_t>(each)) << "each call is a trace of its own";
  for (const auto& log : all.logs) {
    if (log["message"].string() != "order found") continue;
    EXPECT_EQ(log["tenant"].string(), "acme");
    const auto found = traces.find(log["trace_id"].string());
    ASSERT_NE(found, traces.end()) << "a handler's log belongs to its call";
    EXPECT_EQ(++found->second, 1);
  }
}

}  // namespace
}  // namespace spillway::middleware
