// SPDX-License-Identifier: Apache-2.0
//
// What the process runs on, as far as variables and settings say: no file is read and no metadata
// service asked. Resource attributes (OTEL_RESOURCE_ATTRIBUTES) come first, by OpenTelemetry's semantic
// conventions; then what ECS, EKS and Lambda set themselves. EC2 and Elastic Beanstalk set nothing.
#pragma once

#include <spillway/encoders/xray.hpp>
#include <spillway/engine/config.hpp>

namespace spillway::detail {

/// After resolve().
XrayResource xray_resource(const Config& config);

}  // namespace spillway::detail
