// SPDX-License-Identifier: Apache-2.0
//
// Log records as JSON lines (the message of a CloudWatch log event, or a line on stdout) and as
// lines for people.
//
//   {"timestamp":"2026-11-21T01:02:03.123456789Z","level":"INFO","message":"order
//   placed","service":"orders",
//    "tenant":"acme","user":"u-17","request_id":"r-1","trace_id":"1-...","span_id":"...","order_id":17,"total":9.5}
//
// A field's key is a path: {"http.method", m}, {"http.status", s} are {"http":{"method":m,"status":s}}.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <spillway/buffers/batch.hpp>
#include <spillway/buffers/byte_buffer.hpp>
#include <spillway/encoders/fields.hpp>

namespace spillway::detail {

/// Keeps, per call site, the parts of the line that never change. One thread.
class LogEncoder {
 public:
  /// `colours`: in lines for people the severity has one, as terminals understand it.
  explicit LogEncoder(std::string_view service, bool colours = false);

  /// Appends one JSON object, without a line break. Longer than `bytes_max` (at least 1024), its
  /// longest strings are cut and "truncated":true is added.
  void append_json(const LogView& log, std::size_t bytes_max, ByteBuffer& out);

  /// Appends one line for people: time, severity, message, key=value. Control characters are
  /// escaped, and a line that is too long is cut as above, with truncated=true at its end.
  void append_console(const LogView& log, std::size_t bytes_max, ByteBuffer& out);

 private:
  struct Template {
    std::string head;    ///< ","level":"INFO","message":"...","service":"..."
    FieldLayout fields;  ///< with ,"source":"file:line" behind them
  };
  const Template& template_of(const SiteInfo& site);
  void append_fields(const LogView& log, const Template& fixed, std::size_t string_bytes_max,
                     ByteBuffer& out);

  const std::string service_;
  const bool colours_;
  // Found by address: call sites never move. A direct-mapped cache would miss under many sites, a
  // map would be slower.
  std::vector<std::pair<const SiteInfo*, std::unique_ptr<Template>>> templates_;
  std::vector<ValueReader> readers_;  // of the record under way, one before each value
};

}  // namespace spillway::detail
