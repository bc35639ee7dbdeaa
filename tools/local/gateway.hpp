// SPDX-License-Identifier: Apache-2.0
//
// The receiver without its sockets: a request goes in, a reply comes out. The way of a request:
// may it come in at all (screen), which operation is it, what faults are due, is the signature
// right, what does the body say, then the operation itself.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include <simdjson.h>

#include "local/control.hpp"
#include "local/faults.hpp"
#include "local/operations.hpp"
#include "local/options.hpp"
#include "local/protocol.hpp"
#include "local/signature.hpp"
#include "local/store.hpp"
#include <spillway/transport/http.hpp>

namespace spillway::local {

/// What one connection reuses from request to request.
struct Workspace {
  simdjson::dom::parser parser;
  std::string inflated;
};

/// Any thread; each with its own Workspace.
class Gateway {
 public:
  Gateway(const Options& options, Store& store, FaultBox& faults);

  /// Looks at a request whose body has not been read yet: a reply refuses it.
  ///
  /// body_bytes  as announced; nothing when the body comes in chunks.
  std::optional<Reply> screen(const transport::HttpRequest& head,
                              std::optional<std::uint64_t> body_bytes);

  /// How long the body of this request may become.
  static std::size_t body_bytes_max(const transport::HttpRequest& head) noexcept;
  /// For a body that grew past that.
  Reply too_large(const transport::HttpRequest& head);

  struct Outcome {
    Reply reply;
    std::chrono::milliseconds delay{0};  ///< to wait before the reply goes out
    std::chrono::seconds skew{0};        ///< by which the reply's Date is off
  };
  Outcome handle(const transport::HttpRequest& request, Workspace& workspace);

  Control& control() { return control_; }
  std::chrono::system_clock::time_point now() const { return clock_(); }

 private:
  Reply refuse(Protocol protocol, const ApiError& error);
  Reply reply_of(Protocol protocol, Answer answer);
  Reply refuse_unknown(const transport::HttpRequest& request);
  Reply carry_out(const Operation& operation, const transport::HttpRequest& request,
                  const FaultPlan& plan, Workspace& workspace);
  std::variant<std::string_view, ApiError> decode(const Operation& operation,
                                                  const transport::HttpRequest& request,
                                                  Workspace& workspace);
  void count_request(std::string_view operation, int status);

  std::function<std::chrono::system_clock::time_point()> clock_;
  std::string address_;
  bool check_signatures_;
  SignatureVerifier verifier_;
  Store& store_;
  FaultBox& faults_;
  Control control_;
};

}  // namespace spillway::local
