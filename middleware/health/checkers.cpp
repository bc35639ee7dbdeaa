// SPDX-License-Identifier: Apache-2.0
#include <cerrno>
#include <cmath>
#include <system_error>

#include <simdjson.h>
#include <sys/statvfs.h>

#include <spillway/encoders/json.hpp>
#include <spillway/engine/engine.hpp>
#include <spillway/middleware/health/checkers.hpp>
#include <spillway/middleware/resilience/cgroup.hpp>
#include <spillway/middleware/resilience/settings.hpp>
#include <spillway/transport/aws_client.hpp>
#include <spillway/transport/blocking_http.hpp>
#include <spillway/transport/credential_sources.hpp>
#include <spillway/transport/dns.hpp>
#include <spillway/transport/url.hpp>

namespace spillway::middleware {

using std::chrono::milliseconds;

namespace {

std::unique_ptr<transport::HttpTransport> made(const MakeTransport& make) {
  return make ? make() : nullptr;
}

std::string percent(double share) {
  return std::to_string(std::lround(share * 1000) / 10) + "." +
         std::to_string(std::lround(share * 1000) % 10) + " %";
}

std::string mebibytes(std::uint64_t bytes) { return std::to_string(bytes >> 20) + " MiB"; }

}  // namespace

Check check_tcp(std::string host, std::uint16_t port) {
  SettingsCheck("a TCP check")
      .require(!host.empty(), "there is no host")
      .require(port != 0, "there is no port")
      .done();
  return [host = std::move(host), port](const CheckRun& run) {
    const auto begun = std::chrono::steady_clock::now();
    const transport::DnsAddresses found = transport::DnsResolver().addresses(host, run.timeout());
    if (found.addresses.empty()) return CheckResult::fail(found.error);
    const auto spent = std::chrono::ceil<milliseconds>(std::chrono::steady_clock::now() - begun);
    const std::string error = transport::try_connect(
        found.addresses, port, std::max(run.timeout() - spent, milliseconds(0)));
    return error.empty() ? CheckResult{} : CheckResult::fail(error);
  };
}

Check check_http(std::string url, HttpCheckOptions options) {
  const auto parsed = transport::parse_url(url);
  SettingsCheck("an HTTP check")
      .require(parsed.has_value(), "\"" + url + "\" is no http or https URL")
      .within("status_min", options.status_min, 100, 599)
      .within("status_max", options.status_max, options.status_min, 599)
      .done();
  transport::HttpRequest request;
  request.method = options.method;
  request.origin = parsed->origin();
  request.path = parsed->path;
  request.query = parsed->query;
  request.headers = options.headers;
  const auto http = std::make_shared<transport::BlockingHttp>(made(options.http));
  return [http, request = std::move(request), options = std::move(options)](const CheckRun& run) {
    const transport::HttpResponse response = http->send(request, run.timeout());
    const std::string asked = options.method + " " + request.origin + request.path;
    if (response.outcome != transport::HttpOutcome::answered)
      return CheckResult::fail(asked + ": " + response.error);
    if (response.status < options.status_min || response.status > options.status_max)
      return CheckResult::fail(asked + ": status " + std::to_string(response.status));
    if (response.body.find(options.body_contains) == std::string::npos)
      return CheckResult::fail(asked + ": the body does not contain \"" + options.body_contains +
                               "\"");
    return CheckResult{};
  };
}

Check check_dynamodb_table(DynamoDbCheckOptions options) {
  if (options.region.empty()) options.region = transport::configured_region();
  SettingsCheck("a DynamoDB check")
      .require(!options.table.empty(), "there is no table")
      .require(!options.region.empty(), "there is no region: set `region` or AWS_REGION")
      .require(options.endpoint.empty() || transport::parse_url(options.endpoint).has_value(),
               "endpoint \"" + options.endpoint + "\" is no URL")
      .done();
  spillway::detail::ByteBuffer body;
  body.append("{\"TableName\":");
  spillway::detail::append_json_string(body, options.table);
  body.append("}");
  transport::AwsClient::Parts parts;
  parts.service = transport::dynamodb;
  parts.region = options.region;
  parts.endpoint = options.endpoint;
  parts.credentials = transport::default_credentials_chain();
  parts.http = made(options.http);
  parts.attempts_max = 2;
  const auto client = std::make_shared<transport::AwsClient>(std::move(parts));
  return [client, table = options.table, body = std::string(body.view())](const CheckRun& run) {
    const transport::AwsReply reply =
        client->call_json("DynamoDB_20120810.DescribeTable", "1.0", body, run.timeout());
    if (!reply.ok()) return CheckResult::fail("table " + table + ": " + describe(reply));
    simdjson::dom::parser parser;
    std::string_view status;
    if (parser.parse(reply.response.body)["Table"]["TableStatus"].get(status) != simdjson::SUCCESS)
      return CheckResult::fail("table " + table + ": the answer names no status");
    if (status == "ACTIVE") return CheckResult{};
    const std::string why = "table " + table + " is " + std::string(status);
    return status == "UPDATING" ? CheckResult::warn(why) : CheckResult::fail(why);
  };
}

Check check_memory(MemoryCheckOptions options) {
  SettingsCheck("a memory check")
      .within("warn_at", options.warn_at, 0.0, options.fail_at)
      .within("fail_at", options.fail_at, 0.0, 1.0)
      .done();
  return [options, cgroup = std::make_shared<Cgroup>(options.root)](const CheckRun& /*run*/) {
    const auto memory = cgroup->memory();
    if (!memory) return CheckResult::warn("neither cgroup nor /proc/meminfo tells the memory");
    const double used = memory->utilization();
    CheckResult result;
    if (used >= options.warn_at) {
      result.status = used >= options.fail_at ? CheckStatus::fail : CheckStatus::warn;
      result.output = percent(used) + " of " + mebibytes(memory->limit) +
                      (memory->of_machine ? " of the machine is used" : " of the cgroup is used");
    }
    result.observed = used * 100;
    result.measure = "memoryUtilization";
    result.unit = "percent";
    return result;
  };
}

Check check_disk(DiskCheckOptions options) {
  SettingsCheck("a disk check")
      .require(!options.path.empty(), "there is no path")
      .within("free_warn", options.free_warn, options.free_fail, 1.0)
      .within("free_fail", options.free_fail, 0.0, 1.0)
      .done();
  return [options = std::move(options)](const CheckRun& /*run*/) {
    struct statvfs disk {};
    if (statvfs(options.path.c_str(), &disk) != 0)
      return CheckResult::fail(options.path + ": " + std::generic_category().message(errno));
    if ((disk.f_flag & ST_RDONLY) != 0) return CheckResult::fail(options.path + " is read-only");
    if (disk.f_blocks == 0) return CheckResult::fail(options.path + " is on no disk");
    // As df counts: what is kept for root is neither free nor used.
    const auto share = [](fsfilcnt_t all, fsfilcnt_t free, fsfilcnt_t available) {
      const fsfilcnt_t reachable = all - free + available;
      return reachable == 0 ? 0 : static_cast<double>(available) / static_cast<double>(reachable);
    };
    const double space = share(disk.f_blocks, disk.f_bfree, disk.f_bavail);
    // Some file systems make inodes as they are needed and say 0.
    const double inodes = disk.f_files == 0 ? 1 : share(disk.f_files, disk.f_ffree, disk.f_favail);
    CheckResult result;
    const double least = std::min(space, inodes);
    if (least < options.free_warn) {
      result.status = least < options.free_fail ? CheckStatus::fail : CheckStatus::warn;
      result.output = options.path + ": free are " + percent(least) +
                      (inodes < space ? " of the inodes" : " of the space");
    }
    result.observed = space * 100;
    result.measure = "diskFree";
    result.unit = "percent";
    return result;
  };
}

Check check_engine(const Engine& engine) {
  return [&engine](const CheckRun& /*run*/) {
    const Health health = engine.health();
    CheckResult result;
    result.status = health.state == HealthState::healthy    ? CheckStatus::pass
                    : health.state == HealthState::degraded ? CheckStatus::warn
                                                            : CheckStatus::fail;
    result.output = health.reason;
    for (const DestinationHealth& one : health.destinations) {
      if (one.reason.empty()) continue;
      result.output += (result.output.empty() ? "" : "; ") + one.name + ": " + one.reason;
    }
    return result;
  };
}

}  // namespace spillway::middleware
