// SPDX-License-Identifier: Apache-2.0
//
// Checks that are ready made. Each really does what a user of the dependency does, within the
// run's time-out, and says in its output what is wrong. Options that cannot work throw
// std::invalid_argument when the check is made; nothing else touches disk or network before it runs.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <spillway/middleware/health/check.hpp>
#include <spillway/transport/http.hpp>

namespace spillway {
class Engine;
}

namespace spillway::middleware {

/// Connects to a port, resolving the name each time.
Check check_tcp(std::string host, std::uint16_t port);

/// Makes the transport of a check; null: libcurl. For tests.
using MakeTransport = std::function<std::unique_ptr<transport::HttpTransport>()>;

struct HttpCheckOptions {
  std::string method = "GET";
  std::vector<transport::HttpHeader> headers{};
  int status_min = 200;
  int status_max = 299;
  std::string body_contains{};  ///< empty: any body
  MakeTransport http{};
};
/// Asks for a URL, http or https; certificates are verified, redirects not followed.
Check check_http(std::string url, HttpCheckOptions options = {});

struct DynamoDbCheckOptions {
  std::string table;     ///< name or ARN
  std::string region{};  ///< empty: AWS_REGION and its like
  std::string
      endpoint{};  ///< URL; empty: AWS_ENDPOINT_URL_DYNAMODB and its like, else the region's
  MakeTransport http{};
};
/// DescribeTable: passes for ACTIVE, warns for UPDATING, which can be used. Needs the permission
/// dynamodb:DescribeTable.
Check check_dynamodb_table(DynamoDbCheckOptions options);

struct MemoryCheckOptions {
  double warn_at = 0.85;  ///< of the limit of the process's cgroup, or the machine's memory
  double fail_at = 0.95;
  std::string root{};  ///< see Cgroup
};
Check check_memory(MemoryCheckOptions options = {});

struct DiskCheckOptions {
  std::string path = "/tmp";  ///< anywhere on the file system
  double free_warn = 0.15;    ///< of the space, and of the inodes, that the process may have
  double free_fail = 0.05;
};
/// Free space and inodes; a file system that is read-only fails.
Check check_disk(DiskCheckOptions options = {});

/// Whether the telemetry itself arrives: Engine::health(). Make it an optional dependency: a service
/// works without. The engine outlives the check.
Check check_engine(const Engine& engine);

}  // namespace spillway::middleware
