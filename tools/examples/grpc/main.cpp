// SPDX-License-Identifier: Apache-2.0
//
// The shop on gRPC, and a client of it. Messages are bare bytes, so that no .proto has to be compiled; the
// service is set up as generated code does it.
//
//   spillway-example-grpc server
//   spillway-example-grpc client PORT CALLS      prints how often each status came, then the account
#include <iostream>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <grpcpp/impl/client_unary_call.h>
#include <grpcpp/support/method_handler.h>

#include "../shop.hpp"
#include <spillway/middleware/grpc.hpp>

namespace {

using grpc::ByteBuffer;
using spillway::middleware::grpc_code_of;

constexpr const char* get_method = "/shop.Orders/Get";

ByteBuffer bytes_of(const std::string& text) {
  const grpc::Slice slice(text);
  return {&slice, 1};
}
std::string text_of(const ByteBuffer& bytes) {
  std::vector<grpc::Slice> slices;
  std::string text;
  if (!bytes.Dump(&slices).ok()) return text;
  for (const grpc::Slice& slice : slices)
    text.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  return text;
}

class Orders final : public grpc::Service {
 public:
  explicit Orders(examples::Shop& shop) : shop_(shop) {
    using Handler = grpc::internal::RpcMethodHandler<Orders, ByteBuffer, ByteBuffer>;
    AddMethod(new grpc::internal::RpcServiceMethod(
        get_method, grpc::internal::RpcMethod::NORMAL_RPC,
        new Handler([](Orders* orders, grpc::ServerContext*, const ByteBuffer* request,
                       ByteBuffer* response) { return orders->get(*request, *response); },
                    this)));
  }

 private:
  grpc::Status get(const ByteBuffer& request, ByteBuffer& response) {
    if (const auto refused = spillway::middleware::grpc_refusal()) return *refused;
    try {
      response = bytes_of(shop_.order(text_of(request)).body);
      return grpc::Status::OK;
    } catch (const spillway::middleware::HttpError& error) {
      return {grpc_code_of(error.status()), error.what()};
    }  // Of others gRPC makes UNKNOWN.
  }

  examples::Shop& shop_;
};

int serve() {
  examples::Shop shop;
  Orders orders(shop);
  int port = 0;
  grpc::ServerBuilder builder;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(&orders);
  std::vector<std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>> interceptors;
  interceptors.push_back(
      std::make_unique<spillway::middleware::GrpcServerInterceptors<decltype(shop.chain)>>(
          shop.chain));
  builder.experimental().SetInterceptorCreators(std::move(interceptors));
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  shop.serve_until_stopped(static_cast<std::uint16_t>(port));
  server->Shutdown();
  server->Wait();
  shop.report();
  return 0;
}

int call(const std::string& port, int calls) {
  spillway::Engine engine({.service = "till", .metric_namespace = "Till"});
  std::vector<std::unique_ptr<grpc::experimental::ClientInterceptorFactoryInterface>> interceptors;
  interceptors.push_back(std::make_unique<spillway::middleware::GrpcClientInterceptors>(engine));
  const auto channel = grpc::experimental::CreateCustomChannelWithInterceptors(
      "127.0.0.1:" + port, grpc::InsecureChannelCredentials(), {}, std::move(interceptors));
  const grpc::internal::RpcMethod get(get_method, grpc::internal::RpcMethod::NORMAL_RPC);
  std::map<int, int> codes;
  for (int i = 0; i < calls; ++i) {
    const spillway::Context context({.tenant = "acme"});
    const spillway::Scope scope(context);
    const spillway::Span span = engine.span("sell");
    grpc::ClientContext options;
    // A tenth each: the handler throws, there is no such order, a step refuses.
    if (i % 10 == 2) {
      options.AddMetadata("x-request-timeout", "soon");
    } else {
      options.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(10));
    }
    const std::string id = i % 10 == 0 ? "throw" : i % 10 == 1 ? "x" : std::to_string(i);
    ByteBuffer response;
    const grpc::Status status =
        grpc::internal::BlockingUnaryCall(channel.get(), get, &options, bytes_of(id), &response);
    ++codes[status.error_code()];
    if (status.ok() && text_of(response) != "{\"order\":" + id + "}") return 1;
  }
  for (const auto& [code, count] : codes) std::cout << code << '=' << count << ' ';
  std::cout << std::endl << engine.shutdown(std::chrono::seconds(10)).to_json() << std::endl;
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string_view way = argc > 1 ? argv[1] : "";
  if (way == "server") return serve();
  if (way == "client" && argc == 4) return call(argv[2], std::stoi(argv[3]));
  std::cerr << "usage: spillway-example-grpc server | client PORT CALLS\n";
  return 2;
}
