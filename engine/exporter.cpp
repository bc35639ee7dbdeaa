// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include <simdjson.h>

#include <spillway/encoders/json.hpp>
#include <spillway/encoders/limits.hpp>
#include <spillway/encoders/put_log_events.hpp>
#include <spillway/encoders/put_metric_data.hpp>
#include <spillway/encoders/xray.hpp>
#include <spillway/engine/exporter.hpp>
#include <spillway/engine/otlp_exporter.hpp>
#include <spillway/engine/socket_exporter.hpp>
#include <spillway/transport/endpoint.hpp>
#include <spillway/transport/gzip.hpp>
#include <spillway/transport/text.hpp>
#include <spillway/transport/url.hpp>

namespace spillway::detail {

using std::chrono::milliseconds;
using transport::AwsError;
using transport::AwsReply;
using transport::Failure;
using transport::HttpOutcome;
using transport::HttpRequest;
using transport::HttpResponse;

std::variant<HttpRequest, Outcome> Exporter::request(Payload& /*payload*/, WallTime /*now*/) {
  return Outcome{};
}
Outcome Exporter::judge(const Payload& /*payload*/, const HttpResponse& /*response*/,
                        WallTime /*now*/) {
  return {};
}
Outcome Exporter::write(const Payload& /*payload*/, milliseconds /*wait*/) { return {}; }

namespace {

// ---- AWS over HTTPS ----

class AwsExporter : public Exporter {
 public:
  AwsExporter(std::string name, Signal signal, BatchLimits limits,
              const transport::AwsService& service, std::string_view endpoint,
              std::shared_ptr<ExporterShared> shared)
      : Exporter(std::move(name), signal, limits),
        service_(service, shared->region, endpoint, shared->credentials, shared->skew) {}

  bool uses_http() const noexcept final { return true; }

  std::variant<HttpRequest, Outcome> request(Payload& payload, WallTime now) final {
    HttpRequest made;
    build(payload, made);
    const auto error = service_.sign(made, now);
    if (!error) return made;
    Outcome outcome;
    if (error->pending) {
      outcome.next = Outcome::Next::wait;
      return outcome;
    }
    outcome.next = Outcome::Next::retry;
    outcome.failure = Failure::credentials;
    outcome.cause = DropCause::unauthorised;
    outcome.message = name() + ": " + error->message;
    return outcome;
  }

  Outcome judge(const Payload& payload, const HttpResponse& response, WallTime now) final {
    const AwsReply reply = service_.read(response, now);
    const bool prepares = is_preparing();
    if (response.outcome == HttpOutcome::answered) {
      if (auto special = judge_special(payload, response, reply.error)) return std::move(*special);
    }
    if (reply.ok()) return judge_success(payload, response);
    Outcome outcome;
    outcome.failure = reply.failure;
    outcome.asked = reply.asked;
    outcome.sign_again = reply.sign_again;
    outcome.of_preparation = prepares;
    // What is made twice is there once.
    outcome.uncertain = reply.uncertain && !prepares;
    outcome.message =
        name() + ": " + service_.origin() + ": " + transport::describe(response, reply.error);
    switch (reply.failure) {
      case Failure::none:
      case Failure::transient:
      case Failure::throttled:
        outcome.next = Outcome::Next::retry;
        outcome.cause = DropCause::retries_exhausted;
        break;
      case Failure::credentials:
        outcome.next = Outcome::Next::retry;
        outcome.cause = DropCause::unauthorised;
        break;
      case Failure::too_large:
        outcome.next = Outcome::Next::split;
        outcome.cause = DropCause::too_large;
        break;
      case Failure::request:
        outcome.next = Outcome::Next::split;
        outcome.cause = DropCause::rejected;
        break;
    }
    // What is refused then is no part of the payload: splitting it would find nothing.
    if (prepares && outcome.next == Outcome::Next::split) {
      outcome.next = Outcome::Next::finished;
      outcome.dropped = payload.records();
    }
    return outcome;
  }

 protected:
  /// Fills path, headers and body.
  virtual void build(Payload& payload, HttpRequest& request) = 0;
  /// Whether the last request built was one that has to go before the payload's own.
  virtual bool is_preparing() const noexcept { return false; }
  /// What a 2xx answer means.
  virtual Outcome judge_success(const Payload& payload, const HttpResponse& response) {
    (void)response;
    Outcome outcome;
    outcome.delivered = payload.records();
    return outcome;
  }
  /// An answer that this service gives a meaning of its own, before the common reading of it.
  virtual std::optional<Outcome> judge_special(const Payload& /*payload*/,
                                               const HttpResponse& /*response*/,
                                               const AwsError& /*error*/) {
    return std::nullopt;
  }

  void set_body(HttpRequest& request, std::string_view body, bool may_compress) const {
    if (may_compress && body.size() >= limits::gzip_bytes_min && compression_allowed_) {
      if (auto compressed = transport::gzip(body)) {
        request.body = std::move(*compressed);
        request.headers.push_back({"Content-Encoding", "gzip"});
        return;
      }
    }
    request.body = body;
  }

  ByteBuffer body_;

 private:
  static bool compression_wanted() {
    const char* const off = std::getenv("AWS_DISABLE_REQUEST_COMPRESSION");
    return off == nullptr || !transport::equal_without_case(off, "true");
  }

  transport::SignedService service_;
  const bool compression_allowed_ = compression_wanted();
};

class PutMetricDataExporter final : public AwsExporter {
 public:
  PutMetricDataExporter(const Config& config, std::shared_ptr<ExporterShared> shared)
      : AwsExporter(
            // Two names, so that what one has left on disk is not sent as if it were the other.
            datum_format(config) == DatumFormat::cbor ? "put-metric-data-cbor" : "put-metric-data",
            Signal::metrics,
            {limits::datums_per_request_max,
             limits::put_metric_data_bytes_max - frame_bytes(config), 1, 0, milliseconds(0)},
            transport::cloudwatch, config.cloudwatch_endpoint.get(), std::move(shared)),
        namespace_(config.metric_namespace.get()),
        entity_(entity_of(config)),
        format_(datum_format(config)) {}

  int in_flight_max() const noexcept override { return 4; }

 protected:
  void build(Payload& payload, HttpRequest& request) override {
    if (format_ == DatumFormat::cbor) {
      request.path = "/service/GraniteServiceVersion20100801/operation/PutMetricData";
      request.headers = {{"Content-Type", "application/cbor"},
                         {"Accept", "application/cbor"},
                         {"smithy-protocol", "rpc-v2-cbor"}};
    } else {
      request.headers = {{"Content-Type", "application/x-amz-json-1.0"},
                         {"X-Amz-Target", "GraniteServiceVersion20100801.PutMetricData"}};
    }
    request.headers.push_back({"x-amzn-query-mode", "true"});
    body_.clear();
    append_put_metric_data(payload, format_, namespace_, entity_, body_);
    set_body(request, body_.view(), true);
  }

  Outcome judge_success(const Payload& payload, const HttpResponse& response) override {
    Outcome outcome = AwsExporter::judge_success(payload, response);
    // The metrics are stored, the entity is not.
    const std::string_view refused = find_header(response.headers, "X-Amzn-Failure-Message");
    if (!entity_.empty() && !refused.empty()) {
      outcome.message = name() + ": CloudWatch does not take the entity of the metrics: " +
                        std::string(transport::trim(refused)) +
                        "; mend metric_entity_attributes, or set metric_entity = false";
    }
    return outcome;
  }

 private:
  static MetricEntity entity_of(const Config& config) {
    if (!config.metric_entity) return {};
    const std::string& environment = config.environment.get();
    return {{{"Type", "Service"},
             {"Name", config.service.get()},
             {"Environment", environment.empty() ? "generic:default" : environment}},
            config.metric_entity_attributes.get()};
  }
  // What a request has beside its datums; the heads of CBOR's lists grow with what is in them.
  static std::size_t frame_bytes(const Config& config) {
    constexpr std::size_t list_head_bytes = 8;
    ByteBuffer frame;
    append_put_metric_data(Payload(std::pmr::get_default_resource()), datum_format(config),
                           config.metric_namespace.get(), entity_of(config), frame);
    return frame.size() + list_head_bytes;
  }

  const std::string namespace_;
  const MetricEntity entity_;
  const DatumFormat format_;
};

// PutLogEvents to one stream, which is made when the service says that it is missing: first tried
// without, because it mostly exists, and then a missing permission to create does not matter.
class PutLogEventsExporter final : public AwsExporter {
 public:
  PutLogEventsExporter(std::string name, Signal signal, milliseconds delay, std::string group,
                       std::string stream, const Config& config,
                       std::shared_ptr<ExporterShared> shared)
      : AwsExporter(std::move(name), signal,
                    {limits::log_events_per_batch_max, limits::log_batch_bytes_max,
                     limits::log_event_overhead_bytes, limits::log_batch_span_ms_max, delay},
                    transport::cloudwatch_logs, config.logs_endpoint.get(), std::move(shared)),
        group_(std::move(group)),
        stream_(std::move(stream)) {}

  void arrange(Payload& payload) const override { sort_log_events(payload); }

 protected:
  void build(Payload& payload, HttpRequest& request) override {
    std::string_view operation = "PutLogEvents";
    body_.clear();
    switch (step_) {
      case Step::put:
        sort_log_events(payload);
        append_put_log_events(payload, group_, stream_, body_);
        break;
      case Step::create_stream:
        operation = "CreateLogStream";
        body_.append("{\"logGroupName\":\"" + group_ + "\",\"logStreamName\":");
        append_json_string(body_, stream_);
        body_.append('}');
        break;
      case Step::create_group:
        operation = "CreateLogGroup";
        body_.append("{\"logGroupName\":\"" + group_ + "\"}");
        break;
    }
    request.headers = {{"Content-Type", "application/x-amz-json-1.1"},
                       {"X-Amz-Target", "Logs_20140328." + std::string(operation)}};
    set_body(request, body_.view(), false);
  }

  bool is_preparing() const noexcept override { return step_ != Step::put; }

  std::optional<Outcome> judge_special(const Payload& payload, const HttpResponse& response,
                                       const AwsError& error) override {
    const bool good = response.status / 100 == 2;
    Outcome again;
    again.next = Outcome::Next::again;
    Outcome later;
    later.next = Outcome::Next::retry;
    later.failure = Failure::transient;
    later.cause = DropCause::retries_exhausted;
    if (step_ == Step::put) {
      if (error.code == "ResourceNotFoundException" && !created_) {
        step_ = Step::create_stream;
        group_exists_ = false;
        return again;
      }
      if (error.code == "ResourceNotFoundException") {
        created_ =
            false;  // Just made and not seen yet, or deleted since: after a while, from the start.
        return later;
      }
      if (error.code == "DataAlreadyAcceptedException") {
        Outcome done;
        done.delivered = payload.records();
        return done;
      }
      return std::nullopt;
    }
    const bool exists = good || error.code == "ResourceAlreadyExistsException";
    const Step step = std::exchange(step_, Step::put);
    if (step == Step::create_group && exists) {
      step_ = Step::create_stream;
      group_exists_ = true;
      return again;
    }
    if (step == Step::create_stream && exists) {
      created_ = true;
      return again;
    }
    if (step == Step::create_stream && error.code == "ResourceNotFoundException") {
      // There, it was said, and yet missing: being deleted, or not seen everywhere yet.
      if (group_exists_) return later;
      step_ = Step::create_group;
      return again;
    }
    if (error.code == "OperationAbortedException") return later;  // Somebody else is making it.
    if (error.code == "LimitExceededException") {  // Of log groups: waiting does not help.
      Outcome refused;
      refused.dropped = payload.records();
      refused.message = name() + ": cannot create log group " + group_ + ": " + error.message;
      return refused;
    }
    return std::nullopt;
  }

  Outcome judge_success(const Payload& payload, const HttpResponse& response) override {
    Outcome outcome;
    outcome.delivered = payload.records();
    simdjson::dom::parser parser;
    simdjson::dom::element body;
    simdjson::dom::object info;
    if (parser.parse(response.body).get(body) != simdjson::SUCCESS ||
        body["rejectedLogEventsInfo"].get(info) != simdjson::SUCCESS) {
      return outcome;
    }
    // Accepted is what lies between the exclusive ends of the rejected beginning and the start of
    // the rejected end.
    const auto count = static_cast<std::int64_t>(payload.items.size());
    const auto index = [&](std::string_view key, std::int64_t otherwise) {
      std::int64_t value = 0;
      return info[key].get(value) == simdjson::SUCCESS ? std::clamp(value, std::int64_t{0}, count)
                                                       : otherwise;
    };
    const std::int64_t first =
        std::max(index("tooOldLogEventEndIndex", 0), index("expiredLogEventEndIndex", 0));
    const std::int64_t last = std::max(index("tooNewLogEventStartIndex", count), first);
    for (std::int64_t i = 0; i < count; ++i) {
      if (i < first || i >= last)
        outcome.dropped += payload.items[static_cast<std::size_t>(i)].records;
    }
    outcome.delivered -= outcome.dropped;
    outcome.cause = DropCause::expired;
    if (outcome.dropped != 0) {
      outcome.message = name() + ": " + std::to_string(outcome.dropped) +
                        " log events are too old, too new or past the group's retention";
    }
    return outcome;
  }

 private:
  enum class Step : std::uint8_t { put, create_stream, create_group };
  const std::string group_;
  const std::string stream_;
  Step step_ = Step::put;
  bool created_ = false;
  bool group_exists_ = false;  // says the answer to CreateLogGroup, since the last PutLogEvents
};

class PutTraceSegmentsExporter final : public AwsExporter {
 public:
  PutTraceSegmentsExporter(const Config& config, std::shared_ptr<ExporterShared> shared)
      : AwsExporter("put-trace-segments", Signal::spans,
                    {limits::segments_per_request_max, limits::put_trace_segments_bytes_max, 3, 0,
                     config.trace_interval.get()},
                    transport::xray, config.xray_endpoint.get(), std::move(shared)) {}

  int in_flight_max() const noexcept override { return 4; }

 protected:
  void build(Payload& payload, HttpRequest& request) override {
    request.path = "/TraceSegments";
    request.headers = {{"Content-Type", "application/json"}};
    body_.clear();
    append_put_trace_segments(payload, body_);
    set_body(request, body_.view(), false);
  }

  Outcome judge_success(const Payload& payload, const HttpResponse& response) override {
    Outcome outcome;
    outcome.delivered = payload.records();
    simdjson::dom::parser parser;
    simdjson::dom::element body;
    simdjson::dom::array refused;
    if (parser.parse(response.body).get(body) != simdjson::SUCCESS ||
        body["UnprocessedTraceSegments"].get(refused) != simdjson::SUCCESS) {
      return outcome;
    }
    std::vector<bool> counted(payload.items.size());
    for (const simdjson::dom::element entry : refused) {
      // An id that is null or none of ours stands for one document that we cannot name: the first
      // not counted yet.
      std::string_view id;
      const bool named = entry["Id"].get(id) == simdjson::SUCCESS;
      std::size_t which = payload.items.size();
      for (std::size_t i = 0; i < payload.items.size(); ++i) {
        if (counted[i]) continue;
        if (which == payload.items.size()) which = i;
        if (named && hex_of(payload.items[i].id) == id) {
          which = i;
          break;
        }
      }
      if (which == payload.items.size()) break;
      counted[which] = true;
      std::string_view code;
      if (entry["ErrorCode"].get(code) == simdjson::SUCCESS && transport::is_throttling(code)) {
        outcome.left.push_back(which);
        outcome.delivered -= payload.items[which].records;
        continue;
      }
      outcome.dropped += payload.items[which].records;
      if (outcome.message.empty()) {
        outcome.message = name() + ": X-Ray refused segment " + std::string(id) + ": " +
                          text_of(entry["ErrorCode"]) + " " + text_of(entry["Message"]);
      }
    }
    outcome.delivered -= outcome.dropped;
    if (!outcome.left.empty()) {
      outcome.next = Outcome::Next::retry;
      outcome.failure = transport::Failure::throttled;
      std::sort(outcome.left.begin(), outcome.left.end());
      if (outcome.message.empty()) {
        outcome.message = name() + ": X-Ray throttles " + std::to_string(outcome.left.size()) +
                          " segments; they are sent again";
      }
    }
    return outcome;
  }

 private:
  static std::string text_of(simdjson::simdjson_result<simdjson::dom::element> value) {
    std::string_view text;
    return value.get(text) == simdjson::SUCCESS ? std::string(text) : std::string();
  }
  static std::string hex_of(std::uint64_t id) {
    std::string text(16, '0');
    for (std::size_t i = 16; i-- > 0; id >>= 4) text[i] = "0123456789abcdef"[id & 15U];
    return text;
  }
};

// ---- Local destinations ----

// Lines on a descriptor. What a full pipe did not take goes on where it stopped; what stopped in the
// middle of a line for good, or was overtaken by another, is followed by a line of its own. A line
// is delivered when the kernel has all of it.
class StreamExporter final : public Exporter {
 public:
  // As long as CloudWatch Logs takes an event: an agent sends these lines there.
  StreamExporter(std::string name, Signal signal, std::shared_ptr<LineStream> stream)
      : Exporter(std::move(name), signal,
                 {65'536, limits::log_batch_bytes_max, 1, 0, milliseconds(0)}),
        stream_(std::move(stream)) {}

  Outcome write(const Payload& payload, milliseconds wait) override {
    Outcome outcome;
    if (stream_->holder != nullptr && stream_->holder != this) {
      outcome.next = Outcome::Next::again;
      return outcome;
    }
    if (payload.sequence != sequence_) {
      begin(payload);
    } else if (stream_->torn_by != this) {
      go_on_at_line(text_.view().substr(0, written_bytes()).rfind('\n') + 1);
    }
    stream_->holder = this;
    const std::size_t before = rest_.size();
    const transport::WriteResult result = stream_->sink.write(rest_, wait);
    const std::size_t written = written_bytes();
    if (rest_.size() != before) {
      stream_->torn_by = text_.view()[written - 1] == '\n' ? nullptr : this;
    }
    while (lines_done_ < payload.items.size() &&
           done_bytes_ + payload.items[lines_done_].bytes + 1 <= written) {
      done_bytes_ += payload.items[lines_done_].bytes + 1;
      outcome.delivered += payload.items[lines_done_++].records;
    }
    switch (result) {
      case transport::WriteResult::written:
        stream_->holder = nullptr;
        return outcome;
      case transport::WriteResult::busy:
        outcome.next = Outcome::Next::again;
        return outcome;
      case transport::WriteResult::failed:
        break;
    }
    stream_->holder = nullptr;
    outcome.next = Outcome::Next::retry;
    outcome.failure = Failure::transient;
    outcome.cause = DropCause::retries_exhausted;
    outcome.message = name() + ": " + stream_->sink.error();
    return outcome;
  }

 private:
  void begin(const Payload& payload) {
    sequence_ = 0;
    text_.clear();
    text_.append('\n');
    for (const PayloadItem& item : payload.items) {
      text_.append(payload.item(item));
      text_.append('\n');
    }
    sequence_ = payload.sequence;
    lines_done_ = 0;
    done_bytes_ = 1;
    go_on_at_line(1);
  }
  /// With the line break before the line where the stream is in the middle of another.
  void go_on_at_line(std::size_t offset) {
    offset = std::max<std::size_t>(offset, 1);
    rest_ = text_.view().substr(stream_->torn_by != nullptr ? offset - 1 : offset);
  }
  std::size_t written_bytes() const noexcept { return text_.size() - rest_.size(); }

  const std::shared_ptr<LineStream> stream_;
  std::uint64_t sequence_ = 0;  // of the payload that text_ is made of
  ByteBuffer text_;             // a line break, then the lines
  std::string_view rest_;
  std::size_t lines_done_ = 0;
  std::size_t done_bytes_ = 0;  // of text_, up to the end of the last of them
};

std::shared_ptr<LineStream> file_stream(const std::string& path) {
  return std::make_shared<LineStream>(LineStream{transport::StreamSink::file(path)});
}
}  // namespace

std::unique_ptr<Exporter> make_metrics_exporter(const Config& config,
                                                const std::shared_ptr<ExporterShared>& shared) {
  switch (config.metrics.get()) {
    case MetricsTo::none:
      return nullptr;
    case MetricsTo::emf_stdout:
      return std::make_unique<StreamExporter>("emf:stdout", Signal::metrics,
                                              shared->standard_output);
    case MetricsTo::emf_file:
      return std::make_unique<StreamExporter>("emf:file", Signal::metrics,
                                              file_stream(config.metrics_file));
    case MetricsTo::emf_agent:
      return make_emf_agent_exporter(config);
    case MetricsTo::emf_logs:
      return std::make_unique<PutLogEventsExporter>("emf:logs", Signal::metrics, milliseconds(0),
                                                    config.emf_log_group, config.emf_log_stream,
                                                    config, shared);
    case MetricsTo::put_metric_data:
      return std::make_unique<PutMetricDataExporter>(config, shared);
    case MetricsTo::otlp:
      return make_otlp_exporter(Signal::metrics, config, shared);
  }
  return nullptr;
}

std::unique_ptr<Exporter> make_logs_exporter(const Config& config,
                                             const std::shared_ptr<ExporterShared>& shared) {
  switch (config.logs.get()) {
    case LogsTo::none:
      return nullptr;
    case LogsTo::console:
      return std::make_unique<StreamExporter>("console", Signal::logs, shared->standard_output);
    case LogsTo::json_stdout:
      return std::make_unique<StreamExporter>("stdout", Signal::logs, shared->standard_output);
    case LogsTo::file:
      return std::make_unique<StreamExporter>("file", Signal::logs, file_stream(config.logs_file));
    case LogsTo::put_log_events:
      return std::make_unique<PutLogEventsExporter>("put-log-events", Signal::logs,
                                                    config.log_interval, config.log_group,
                                                    config.log_stream, config, shared);
    case LogsTo::otlp:
      return make_otlp_exporter(Signal::logs, config, shared);
  }
  return nullptr;
}

std::unique_ptr<Exporter> make_traces_exporter(const Config& config,
                                               const std::shared_ptr<ExporterShared>& shared) {
  switch (config.traces.get()) {
    case TracesTo::none:
      return nullptr;
    case TracesTo::xray_daemon:
      return make_xray_daemon_exporter(config);
    case TracesTo::put_trace_segments:
      return std::make_unique<PutTraceSegmentsExporter>(config, shared);
    case TracesTo::otlp:
      return make_otlp_exporter(Signal::spans, config, shared);
  }
  return nullptr;
}

}  // namespace spillway::detail
