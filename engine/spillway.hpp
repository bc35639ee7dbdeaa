// SPDX-License-Identifier: Apache-2.0
//
// Everything that a service needs to record: #include <spillway/spillway.hpp>.
#pragma once

#include <spillway/engine/engine.hpp>        // IWYU pragma: export
#include <spillway/engine/exception.hpp>     // IWYU pragma: export
#include <spillway/engine/trace_header.hpp>  // IWYU pragma: export
