// SPDX-License-Identifier: Apache-2.0
//
// CloudWatch Logs PutLogEvents (API reference; botocore model logs/2014-03-28, read 2026-08-07).
#pragma once

#include <string_view>

#include <spillway/buffers/payload.hpp>

namespace spillway::detail {

/// Puts the payload's items into the order of their times, as the service demands, and within a
/// millisecond by their ticks; what is equal keeps its order.
void sort_log_events(Payload& payload);

/// Appends the request body that carries the payload's items, each a message, sorted before.
void append_put_log_events(const Payload& payload, std::string_view log_group,
                           std::string_view log_stream, ByteBuffer& out);

}  // namespace spillway::detail
