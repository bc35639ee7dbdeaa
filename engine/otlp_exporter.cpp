// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>

#include <simdjson.h>
#include <unistd.h>

#include <spillway/encoders/limits.hpp>
#include <spillway/encoders/otlp.hpp>
#include <spillway/engine/otlp_exporter.hpp>
#include <spillway/transport/endpoint.hpp>
#include <spillway/transport/gzip.hpp>
#include <spillway/transport/signed_service.hpp>
#include <spillway/transport/text.hpp>
#include <spillway/transport/url.hpp>

namespace spillway::detail {
namespace {

using std::chrono::milliseconds;
using transport::AwsError;
using transport::Failure;
using transport::HttpOutcome;
using transport::HttpRequest;
using transport::HttpResponse;

// What differs between the signals.
struct SignalParts {
  std::string_view name;
  const transport::AwsService* service;
  const Setting<std::string>* endpoint;
  const Setting<HttpHeaders>* headers;
  std::string_view rejected_key;  // of a partial success in JSON
  BatchLimits limits;
};

SignalParts parts_of(Signal signal, const Config& config) {
  switch (signal) {
    case Signal::metrics:
      return {"otlp:metrics",
              &transport::cloudwatch,
              &config.otlp_metrics_endpoint,
              &config.otlp_metrics_headers,
              "rejectedDataPoints",
              {limits::otlp_points_per_request_max, 0, 0, 0, milliseconds(0)}};
    case Signal::logs:
      return {"otlp:logs",
              &transport::cloudwatch_logs,
              &config.otlp_logs_endpoint,
              &config.otlp_logs_headers,
              "rejectedLogRecords",
              {limits::otlp_logs_per_request_max, 0, 0, limits::otlp_span_of_times_ms_max,
               config.log_interval.get()}};
    case Signal::spans:
      break;
  }
  return {"otlp:traces",
          &transport::xray,
          &config.otlp_traces_endpoint,
          &config.otlp_traces_headers,
          "rejectedSpans",
          {limits::otlp_spans_per_request_max, 0, 0, limits::otlp_span_of_times_ms_max,
           config.trace_interval.get()}};
}

std::string host_name() {
  std::array<char, 256> name{};
  return gethostname(name.data(), name.size() - 1) == 0 ? name.data() : "localhost";
}

// What the user said of the resource, and what we know of it; an attribute stands once.
std::string resource_of(const Config& config) {
  std::vector<std::pair<std::string, std::string>> attributes{
      {"service.name", config.service.get()},
      {"service.version", config.service_version.get()},
      {"deployment.environment.name", config.environment.get()},
      {"telemetry.sdk.name", "spillway"},
      {"telemetry.sdk.language", "cpp"},
      {"telemetry.sdk.version", "0.1.0"}};
  const auto add = [&](const std::string& name, const std::string& value) {
    const auto same = [&](const auto& one) { return one.first == name && !one.second.empty(); };
    if (std::none_of(attributes.begin(), attributes.end(), same)) {
      attributes.emplace_back(name, value);
    }
  };
  for (const Dimension& one : config.resource_attributes.get()) add(one.name, one.value);
  const std::string host = host_name();
  add("host.name", host);
  add("service.instance.id", host + "/" + std::to_string(getpid()));
  return encode_otlp_resource(attributes);
}

HttpHeaders headers_of(const HttpHeaders& common, const HttpHeaders& own) {
  HttpHeaders headers = own;
  for (const transport::HttpHeader& header : common) {
    if (transport::find_header(own, header.name).empty()) headers.push_back(header);
  }
  return headers;
}

bool is_json(const HttpResponse& response) {
  return transport::find_header(response.headers, "Content-Type").starts_with("application/json");
}

// Of an answer in JSON, where a 64-bit number may be a string.
OtlpPartialSuccess read_json_response(const HttpResponse& response, std::string_view rejected_key) {
  OtlpPartialSuccess result;
  simdjson::dom::parser parser;
  simdjson::dom::object partial;
  if (parser.parse(response.body)["partialSuccess"].get(partial) != simdjson::SUCCESS) {
    return result;
  }
  std::string_view text;
  if (partial[rejected_key].get(result.rejected) != simdjson::SUCCESS &&
      partial[rejected_key].get(text) == simdjson::SUCCESS) {
    result.rejected = transport::parse_number<std::int64_t>(text).value_or(0);
  }
  result.rejected = std::max(result.rejected, std::int64_t{0});
  if (partial["errorMessage"].get(text) == simdjson::SUCCESS) result.message = text;
  return result;
}

class OtlpExporter final : public Exporter {
 public:
  OtlpExporter(const SignalParts& parts, const BatchLimits& limits, Signal signal,
               std::string resource, const Config& config, std::shared_ptr<ExporterShared> shared)
      : Exporter(std::string(parts.name), signal, limits),
        shared_(std::move(shared)),
        resource_(std::move(resource)),
        headers_(headers_of(config.otlp_headers, *parts.headers)),
        rejected_key_(parts.rejected_key),
        compressed_(config.otlp_compression.get() == Compression::gzip) {
    const auto url = transport::parse_url(parts.endpoint->get());
    origin_ = url ? url->origin() : parts.endpoint->get();
    path_ = url ? url->path : "/";
    query_ = url ? url->query : "";
    const auto aws = url ? transport::parse_aws_host(url->host) : std::nullopt;
    const bool has_token = !transport::find_header(headers_, "Authorization").empty();
    if (!has_token && (aws || config.otlp_sign)) {
      transport::AwsService service = *parts.service;
      if (aws) service.prefix = aws->service;
      service_.emplace(service, aws ? aws->region : config.region.get(), origin_,
                       shared_->credentials, shared_->skew);
    }
    // CloudWatch Logs wants to be told where to; both must exist.
    if (signal == Signal::logs && (aws || config.otlp_sign)) {
      headers_ = headers_of({{"x-aws-log-group", config.log_group.get()},
                             {"x-aws-log-stream", config.log_stream.get()}},
                            headers_);
    }
    // What the body is, we know: a second word of it would make the request ambiguous.
    std::erase_if(headers_, [](const transport::HttpHeader& header) {
      return transport::equal_without_case(header.name, "Content-Type") ||
             transport::equal_without_case(header.name, "Content-Encoding");
    });
    headers_.push_back({"Content-Type", "application/x-protobuf"});
  }

  int in_flight_max() const noexcept override { return 4; }
  bool uses_http() const noexcept override { return true; }

  std::variant<HttpRequest, Outcome> request(Payload& payload, WallTime now) override {
    HttpRequest made;
    made.origin = origin_;
    made.path = path_;
    made.query = query_;
    made.headers = headers_;
    body_.clear();
    append_otlp_request(payload, resource_, body_);
    std::optional<std::string> packed;
    if (compressed_ && body_.size() >= limits::gzip_bytes_min) {
      packed = transport::gzip(body_.view());
    }
    if (packed) {
      made.headers.push_back({"Content-Encoding", "gzip"});
      made.body = std::move(*packed);
    } else {
      made.body = body_.view();
    }
    if (!service_) return made;
    const auto error = service_->sign(made, now);
    if (!error) return made;
    if (error->pending) {
      Outcome outcome;
      outcome.next = Outcome::Next::wait;
      return outcome;
    }
    Outcome outcome = try_again(Failure::credentials, DropCause::unauthorised);
    outcome.message = name() + ": " + error->message;
    return outcome;
  }

  Outcome judge(const Payload& payload, const HttpResponse& response, WallTime now) override {
    const transport::AwsReply reply =
        service_ ? service_->read(response, now) : transport::AwsReply{};
    if (response.outcome != HttpOutcome::answered) {
      Outcome outcome = try_again(Failure::transient, DropCause::retries_exhausted);
      outcome.uncertain =
          response.outcome == HttpOutcome::lost || response.outcome == HttpOutcome::too_large;
      outcome.message = name() + ": no answer from " + origin_ + ": " + response.error;
      return outcome;
    }
    if (response.status / 100 == 2) return judge_success(payload, response);
    const AwsError error = service_ ? reply.error : read_error(response);
    Outcome outcome = judge_failure(payload, response, reply);
    outcome.asked = transport::retry_after(response);
    outcome.asked_excess_max = limits::otlp_retry_after_max;
    outcome.sign_again = reply.sign_again;
    outcome.message =
        name() + ": " + origin_ + path_ + " answered " + std::to_string(response.status);
    if (!error.code.empty()) outcome.message.append(" ").append(error.code);
    if (!error.message.empty()) outcome.message.append(": ").append(error.message);
    return outcome;
  }

 private:
  static Outcome try_again(Failure failure, DropCause cause) {
    Outcome outcome;
    outcome.next = Outcome::Next::retry;
    outcome.failure = failure;
    outcome.cause = cause;
    return outcome;
  }

  // A google.rpc.Status, where it is not what AWS answers with.
  static AwsError read_error(const HttpResponse& response) {
    constexpr std::size_t message_bytes_max = 500;
    const std::string_view type = transport::find_header(response.headers, "Content-Type");
    if (!type.starts_with("application/x-protobuf")) return transport::parse_aws_error(response);
    return {"", read_otlp_status(response.body).substr(0, message_bytes_max)};
  }

  Outcome judge_success(const Payload& payload, const HttpResponse& response) const {
    const OtlpPartialSuccess partial = is_json(response)
                                           ? read_json_response(response, rejected_key_)
                                           : read_otlp_response(response.body);
    Outcome outcome;
    outcome.delivered = payload.records();
    const std::uint64_t items = payload.items.size();
    const std::uint64_t rejected = std::min(static_cast<std::uint64_t>(partial.rejected), items);
    if (rejected != 0) {
      // Which ones it does not say. A log or a span is an item; the items of metrics stand for many
      // measurements each, of which as large a share is counted as of the items.
      outcome.dropped = static_cast<std::uint64_t>(
          static_cast<double>(outcome.delivered) *
              (static_cast<double>(rejected) / static_cast<double>(items)) +
          0.5);
      outcome.dropped = std::min(std::max(outcome.dropped, std::uint64_t{1}), outcome.delivered);
      outcome.delivered -= outcome.dropped;
    }
    if (rejected != 0 || !partial.message.empty()) {
      outcome.message = name() + ": " + origin_ + path_ + " refused " + std::to_string(rejected) +
                        " of " + std::to_string(items) + ": " + partial.message;
    }
    return outcome;
  }

  Outcome judge_failure(const Payload& payload, const HttpResponse& response,
                        const transport::AwsReply& reply) {
    const Failure failure = service_ ? reply.failure : failure_of(response.status);
    switch (failure) {
      case Failure::transient:
      case Failure::throttled: {
        Outcome outcome = try_again(failure, DropCause::retries_exhausted);
        outcome.uncertain = failure == Failure::transient;
        return outcome;
      }
      case Failure::credentials:
        if (service_) return try_again(failure, DropCause::unauthorised);
        return refused(payload, failure, DropCause::unauthorised);  // The token stays what it is.
      case Failure::too_large:
      case Failure::request:
        break;
      case Failure::none:
        return refused(payload, failure, DropCause::rejected);  // A redirect, or no final answer.
    }
    // 400 is said of bad data and 413 of too much of it: parts of it may be good. Anything else is
    // said of the request, and would be of its parts.
    if (response.status != 400 && response.status != 413) {
      return refused(payload, failure, DropCause::rejected);
    }
    Outcome outcome;
    outcome.next = Outcome::Next::split;
    outcome.failure = failure;
    outcome.cause = failure == Failure::too_large ? DropCause::too_large : DropCause::rejected;
    return outcome;
  }

  static Outcome refused(const Payload& payload, Failure failure, DropCause cause) {
    Outcome outcome;
    outcome.failure = failure;
    outcome.dropped = payload.records();
    outcome.cause = cause;
    return outcome;
  }

  // "Retryable Response Codes": these four, and no others.
  static Failure failure_of(int status) noexcept {
    switch (status) {
      case 429:
        return Failure::throttled;
      case 502:
      case 503:
      case 504:
        return Failure::transient;
      case 401:
      case 403:
        return Failure::credentials;
      case 413:
        return Failure::too_large;
      default:
        return Failure::request;
    }
  }

  std::shared_ptr<ExporterShared> shared_;
  const std::string resource_;
  HttpHeaders headers_;
  const std::string_view rejected_key_;
  const bool compressed_;
  std::string origin_;
  std::string path_;
  std::string query_;
  std::optional<transport::SignedService> service_;
  ByteBuffer body_;
};

}  // namespace

bool otlp_spans_go_to_xray(const Config& config) {
  const auto url = transport::parse_url(config.otlp_traces_endpoint.get());
  return config.otlp_sign || (url && transport::parse_aws_host(url->host));
}

std::unique_ptr<Exporter> make_otlp_exporter(Signal signal, const Config& config,
                                             std::shared_ptr<ExporterShared> shared) {
  const SignalParts parts = parts_of(signal, config);
  std::string resource = resource_of(config);
  BatchLimits batch = parts.limits;
  batch.bytes_max = limits::otlp_request_bytes_max - otlp_request_overhead_bytes(resource);
  return std::make_unique<OtlpExporter>(parts, batch, signal, std::move(resource), config,
                                        std::move(shared));
}

}  // namespace spillway::detail
