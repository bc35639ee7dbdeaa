// SPDX-License-Identifier: Apache-2.0
//
// The tracepoint that stands for LTTng-UST: an order with an integer, a double and a text.
// Read several times by LTTng's own headers, so there is no #pragma once.
#pragma GCC system_header

#undef LTTNG_UST_TRACEPOINT_PROVIDER
#define LTTNG_UST_TRACEPOINT_PROVIDER spillway_bench
#undef LTTNG_UST_TRACEPOINT_INCLUDE
#define LTTNG_UST_TRACEPOINT_INCLUDE "lttng_events.hpp"

#if !defined(SPILLWAY_BENCH_LTTNG_EVENTS) || defined(LTTNG_UST_TRACEPOINT_HEADER_MULTI_READ)
#define SPILLWAY_BENCH_LTTNG_EVENTS

#include <lttng/tracepoint.h>

// clang-format off
LTTNG_UST_TRACEPOINT_EVENT(
    spillway_bench, order,
    LTTNG_UST_TP_ARGS(int, order_id, double, total, const char*, currency),
    LTTNG_UST_TP_FIELDS(
        lttng_ust_field_integer(int, order_id, order_id)
        lttng_ust_field_float(double, total, total)
        lttng_ust_field_string(currency, currency)))
// clang-format on

#endif

#include <lttng/tracepoint-event.h>
