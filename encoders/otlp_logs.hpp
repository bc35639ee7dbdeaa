// SPDX-License-Identifier: Apache-2.0
//
// Log records as OTLP LogRecord messages (opentelemetry-proto logs/v1, read 2026-08). The message is
// the body, fields are attributes of their own types, and on whose behalf the record was made are the
// attributes tenant, enduser.id and request_id.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <spillway/buffers/batch.hpp>
#include <spillway/buffers/byte_buffer.hpp>
#include <spillway/encoders/otlp.hpp>

namespace spillway::detail {

/// Keeps, per call site, the parts of the record that never change. One thread.
class OtlpLogEncoder {
 public:
  /// Appends one record as an item of a request. Longer than `bytes_max` (at least 1024), its longest
  /// strings are cut and the attribute `truncated` is added.
  void append(const LogView& log, std::size_t bytes_max, ByteBuffer& out);

 private:
  struct Template {
    std::string fixed;  ///< severity, body, and for WARN and above the place in the source
    std::vector<OtlpKey> keys;
  };
  const Template& template_of(const SiteInfo& site);
  void append_record(const LogView& log, const Template& fixed, std::size_t string_bytes_max,
                     bool truncated, ByteBuffer& out) const;

  // By address, in its order: call sites never move.
  std::vector<std::pair<const SiteInfo*, std::unique_ptr<Template>>> templates_;
};

}  // namespace spillway::detail
