// SPDX-License-Identifier: Apache-2.0
//
// What the services do with a request that is signed, read and free of faults.
#pragma once

#include <chrono>
#include <variant>

#include <simdjson.h>

#include "local/faults.hpp"
#include "local/protocol.hpp"
#include "local/store.hpp"

namespace spillway::local {

/// One request on its way through.
struct Call {
  OperationId operation;
  simdjson::dom::object request;
  std::chrono::system_clock::time_point now;
  const Fault* partial_reject;  ///< or null
  Store& store;
};

/// A success, or a refusal that still has to take its service's form.
using Answer = std::variant<Reply, ApiError>;

/// One request of OTLP, whose body is no JSON.
struct OtlpCall {
  OperationId operation;
  std::string_view body;  ///< inflated
  const transport::HttpRequest& request;
  bool is_signed;
  std::chrono::system_clock::time_point now;
  const Fault* partial_reject;  ///< or null
  Store& store;
};

Answer call_monitoring(const Call& call);
Answer call_logs(const Call& call);
Answer call_xray(const Call& call);
Answer call_otlp(const OtlpCall& call);

}  // namespace spillway::local
