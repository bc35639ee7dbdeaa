// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <utility>

#include <spillway/middleware/rate_limit/dynamodb_store.hpp>
#include <spillway/middleware/rate_limit/dynamodb_table.hpp>
#include <spillway/middleware/rate_limit/lease_keeper.hpp>
#include <spillway/transport/credential_sources.hpp>
#include <spillway/transport/url.hpp>

namespace spillway::middleware {
namespace {

using std::chrono::milliseconds;

constexpr std::size_t keys_limit = std::size_t{1} << 24;

// The options with region and endpoint found; throws.
DynamoDbRateStoreOptions completed(DynamoDbRateStoreOptions options) {
  std::vector<std::string> errors;
  const auto check = [&](const char* name, auto value, auto least, auto most, const char* unit) {
    if (value >= least && value <= most) return;
    errors.push_back(std::string(name) + " is " + std::to_string(value) + unit + ", allowed is " +
                     std::to_string(least) + unit + " to " + std::to_string(most) + unit);
  };
  const auto is_name_char = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_' || c == '.';
  };
  // CreateTable, DynamoDB's API reference, read 2026-08.
  if (options.table.size() < 3 || options.table.size() > 255 ||
      !std::all_of(options.table.begin(), options.table.end(), is_name_char)) {
    errors.push_back("table is \"" + options.table +
                     "\", allowed are 3 to 255 letters, digits, '-', '_', '.'");
  }
  std::string where = "region (from options)";
  if (options.region.empty()) {
    options.region = transport::configured_region();
    where = "region (from AWS_REGION, AWS_DEFAULT_REGION or the profile)";
  }
  const bool has_region = transport::is_region(options.region);
  if (!has_region) {
    errors.push_back(where + (options.region.empty()
                                  ? " is missing: set it, or AWS_REGION"
                                  : " is \"" + options.region + "\", which is no region"));
  }
  where = "endpoint (from options)";
  if (options.endpoint.empty()) {
    where = "endpoint (from AWS_ENDPOINT_URL_DYNAMODB, AWS_ENDPOINT_URL or the profile)";
    options.endpoint = transport::configured_endpoint(transport::dynamodb).value_or("");
  }
  if (!options.endpoint.empty()) {
    const auto url = transport::parse_url(options.endpoint);
    if (!url) {
      errors.push_back(where + " is \"" + options.endpoint +
                       "\", allowed is a URL such as https://host or http://127.0.0.1:8000");
    } else if (url->scheme == "http" && transport::parse_aws_host(url->host)) {
      errors.push_back(where + " is \"" + options.endpoint + "\": AWS is asked by https only");
    }
  } else if (has_region) {
    options.endpoint = transport::service_endpoint(transport::dynamodb, options.region);
  }
  check("lease_permits_max", options.lease_permits_max, std::int64_t{0}, rate_permits_max, "");
  check("lease_time", options.lease_time.count(), 100L, 60'000L, " ms");
  check("denial_time_max", options.denial_time_max.count(), 0L,
        std::chrono::duration_cast<milliseconds>(rate_window_max).count(), " ms");
  check("wait", options.wait.count(), 0L, 10'000L, " ms");
  check("request_timeout", options.request_timeout.count(), 10L, 30'000L, " ms");
  check("close_timeout", options.close_timeout.count(), 0L, 60'000L, " ms");
  check("connections", options.connections, 1, 64, "");
  check("keys_max", options.keys_max, std::size_t{1}, keys_limit, "");
  if (!errors.empty()) throw InvalidDynamoDbRateStore(std::move(errors));
  return options;
}

std::string lines_of(const std::vector<std::string>& errors) {
  std::string text = "the DynamoDB store of rate limits cannot work so:";
  for (const std::string& error : errors) text.append("\n  ").append(error);
  return text;
}

detail::DynamoDbTable::Parts parts_of(const DynamoDbRateStoreOptions& options) {
  return {.table = options.table,
          .region = options.region,
          .endpoint = options.endpoint,
          .credentials = nullptr,
          .timeout = options.request_timeout};
}

}  // namespace

InvalidDynamoDbRateStore::InvalidDynamoDbRateStore(std::vector<std::string> errors)
    : std::invalid_argument(lines_of(errors)), errors_(std::move(errors)) {}

DynamoDbRateStore::DynamoDbRateStore(const DynamoDbRateStoreOptions& options)
    : options_(completed(options)) {
  detail::LeaseKeeper::Parts parts{
      .lease = {.permits_max = options_.lease_permits_max,
                .time_ns = std::chrono::nanoseconds(options_.lease_time).count(),
                .denial_ns_max = std::chrono::nanoseconds(options_.denial_time_max).count()},
      .keys_max = options_.keys_max,
      .admit_when_unavailable = options_.admit_when_unavailable,
      .wait = options_.wait,
      .secret_key = options_.secret_key};
  const auto credentials = transport::default_credentials_chain();
  const auto skew = std::make_shared<transport::ClockSkew>();
  for (int i = 0; i < options_.connections; ++i) {
    detail::DynamoDbTable::Parts one = parts_of(options_);
    one.credentials = credentials;
    one.skew = skew;
    parts.tables.push_back(std::make_unique<detail::DynamoDbTable>(std::move(one)));
  }
  keeper_ = std::make_unique<detail::LeaseKeeper>(std::move(parts));
}

DynamoDbRateStore::~DynamoDbRateStore() {
  close(options_.close_timeout);
  transport::release_inherited(keeper_);
}

std::optional<std::string> DynamoDbRateStore::create_table(milliseconds timeout) {
  detail::DynamoDbTable::Parts parts = parts_of(options_);
  parts.credentials = transport::default_credentials_chain();
  return detail::DynamoDbTable(std::move(parts)).create(timeout);
}

RateDecision DynamoDbRateStore::take(const RateKey& key, const detail::RateRule& rule,
                                     std::int64_t permits, SteadyTime now) noexcept {
  return keeper_->take(key, rule, permits, now);
}

void DynamoDbRateStore::give_back(const RateKey& key, const detail::RateRule& rule,
                                  std::int64_t permits, std::int64_t receipt,
                                  SteadyTime now) noexcept {
  keeper_->give_back(key, rule, permits, receipt, now);
}

bool DynamoDbRateStore::close(milliseconds timeout) noexcept { return keeper_->close(timeout); }

DynamoDbRateStats DynamoDbRateStore::stats() const { return keeper_->stats(); }

}  // namespace spillway::middleware
