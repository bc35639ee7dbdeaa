// SPDX-License-Identifier: Apache-2.0
//
// The local receiver without sockets, at a time that stands still, and a client that signs.
#pragma once

#include <chrono>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <gtest/gtest.h>
#include <simdjson.h>
#include <zlib.h>

#include "local/gateway.hpp"
#include <spillway/transport/sigv4.hpp>

namespace spillway::local {

inline constexpr std::string_view put_metric_data = "GraniteServiceVersion20100801.PutMetricData";
inline constexpr std::string_view put_log_events = "Logs_20140328.PutLogEvents";

inline transport::Credentials test_credentials() { return {"AKIDLOCAL", "a-secret-canary"}; }

/// A POST as an AWS client makes it: `selector` is an X-Amz-Target, or a path for X-Ray.
inline transport::HttpRequest aws_request(Service service, std::string_view selector,
                                          std::string body) {
  transport::HttpRequest request;
  request.origin = "http://127.0.0.1:4566";
  request.body = std::move(body);
  if (service == Service::xray) {
    request.path = selector;
    request.headers = {{"Content-Type", "application/json"}};
  } else {
    const char* const version = service == Service::monitoring ? "1.0" : "1.1";
    request.headers = {{"Content-Type", std::string("application/x-amz-json-") + version},
                       {"X-Amz-Target", std::string(selector)}};
  }
  return request;
}

inline void sign(transport::HttpRequest& request, Service service,
                 std::chrono::system_clock::time_point now,
                 const transport::Credentials& credentials = test_credentials()) {
  transport::Sigv4Signer("eu-west-1", std::string(to_string(service)))
      .sign(request, credentials, now);
}

inline std::string gzip(const std::string& text) {
  z_stream stream{};
  deflateInit2(&stream, Z_BEST_COMPRESSION, Z_DEFLATED, 16 + MAX_WBITS, 9, Z_DEFAULT_STRATEGY);
  std::string result(deflateBound(&stream, static_cast<uLong>(text.size())), '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  stream.avail_in = static_cast<uInt>(text.size());
  stream.next_out = reinterpret_cast<Bytef*>(result.data());
  stream.avail_out = static_cast<uInt>(result.size());
  deflate(&stream, Z_FINISH);
  result.resize(stream.total_out);
  deflateEnd(&stream);
  return result;
}

inline std::string repeat(std::string_view text, std::size_t count) {
  std::string result;
  for (std::size_t i = 0; i < count; ++i) result += text;
  return result;
}

/// `count` times `item`, with commas.
inline std::string list_of(std::string_view item, std::size_t count) {
  std::string result = repeat(std::string(item) + ",", count);
  if (!result.empty()) result.pop_back();
  return result;
}

/// The error code that a reply carries, whatever the protocol; empty for a success.
inline std::string code_of(const Reply& reply) {
  if (reply.status == 200) return {};
  const std::string_view header = transport::find_header(reply.headers, "x-amzn-errortype");
  if (!header.empty()) return std::string(header);
  simdjson::dom::parser parser;
  std::string_view type;
  if (parser.parse(reply.body)["__type"].get(type) != simdjson::SUCCESS) return "(no code)";
  return std::string(type.substr(type.find('#') + 1));
}

class LocalGatewayTest : public ::testing::Test {
 protected:
  using time_point = std::chrono::system_clock::time_point;

  static Options options_at(const time_point* now) {
    Options options;
    options.credentials = {test_credentials()};
    options.clock = [now] { return *now; };
    options.log_events_kept_max = 1000;
    return options;
  }

  std::int64_t now_ms() const {
    return std::chrono::duration_cast<std::chrono::milliseconds>(now_.time_since_epoch()).count();
  }
  double now_s() const { return static_cast<double>(now_ms()) / 1000; }

  Reply send(const transport::HttpRequest& request) {
    if (auto refusal = gateway_.screen(request, request.body.size())) return *std::move(refusal);
    return gateway_.handle(request, workspace_).reply;
  }
  Reply call(Service service, std::string_view selector, std::string body) {
    transport::HttpRequest request = aws_request(service, selector, std::move(body));
    sign(request, service, now_);
    return send(request);
  }
  /// A page of the receiver's own.
  Reply page(std::string method, std::string path, std::string query = {}, std::string body = {}) {
    transport::HttpRequest request;
    request.method = std::move(method);
    request.path = "/_spillway/" + std::move(path);
    request.query = std::move(query);
    request.body = std::move(body);
    request.headers = {{"Host", "localhost:4566"}};
    return send(request);
  }

  // 2026-11-21 08:00 UTC.
  time_point now_ =
      std::chrono::sys_days(std::chrono::year(2026) / 11 / 21) + std::chrono::hours(8);
  const Options options_ = options_at(&now_);
  Store store_{options_};
  FaultBox faults_;
  Gateway gateway_{options_, store_, faults_};
  Workspace workspace_;
};

}  // namespace spillway::local
