// SPDX-License-Identifier: Apache-2.0
//
// The gRPC adapter with a server and clients in one process: what its library would end the process for.
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <grpcpp/impl/client_unary_call.h>
#include <grpcpp/support/method_handler.h>
#include <gtest/gtest.h>
#include <support/engine_fixture.hpp>

#include <spillway/middleware/grpc.hpp>

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

}  // namespace
}  // namespace spillway::middleware
