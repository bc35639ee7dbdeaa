// SPDX-License-Identifier: Apache-2.0
//
// An exporter knows one destination: how much goes into one payload, how a payload becomes a
// request, and what an answer means for each of its records. It does not send, wait or count: the
// sender does.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <variant>

#include <spillway/buffers/payload.hpp>
#include <spillway/encoders/put_metric_data.hpp>
#include <spillway/engine/clock.hpp>
#include <spillway/engine/config.hpp>
#include <spillway/engine/stats.hpp>
#include <spillway/transport/aws_error.hpp>
#include <spillway/transport/credential_sources.hpp>
#include <spillway/transport/http.hpp>
#include <spillway/transport/retry.hpp>
#include <spillway/transport/signed_service.hpp>
#include <spillway/transport/stream_sink.hpp>
#include <spillway/transport/udp_sink.hpp>

namespace spillway::detail {

/// When a payload is full.
struct BatchLimits {
  std::size_t items_max;
  std::size_t bytes_max;                ///< of items and their overhead together
  std::size_t overhead_bytes;           ///< counted on top of each item
  std::int64_t span_ms_max;             ///< between the earliest and the latest item; 0: any
  std::chrono::milliseconds delay_max;  ///< the oldest item waits no longer
};

/// What became of an attempt.
struct Outcome {
  enum class Next : std::uint8_t {
    finished,  ///< every record is accounted below
    again,     ///< at once: a preparation succeeded, or the request has to be built anew
    wait,      ///< soon, and this was no attempt: something that it needs is being fetched
    retry,     ///< after a back-off, as `failure` says; of the items `left` alone, if there are any
    split  ///< in two halves: the request is at fault, or too large, and the records are not all to
           ///< blame
  };
  Next next = Next::finished;
  transport::Failure failure = transport::Failure::none;
  std::uint64_t delivered = 0;
  std::uint64_t dropped = 0;
  std::vector<std::size_t> left;  ///< items that are not accounted below and are to go again
  DropCause cause = DropCause::rejected;  ///< of `dropped`, and of all when the sender gives up
  std::optional<std::chrono::milliseconds> asked;  ///< the server's own back-off
  std::chrono::milliseconds asked_excess_max = transport::aws_asked_excess_max;  ///< see backoff
  bool sign_again = false;  ///< the same request with a new signature may be taken: once, at once
  bool uncertain = false;   ///< the other side may have taken it without saying so
  /// The request was not the payload's but one that had to go before it: making a log stream.
  bool of_preparation = false;
  std::string message;  ///< for people; empty: nothing to say
};

class Exporter {
 public:
  explicit Exporter(std::string name, Signal signal, BatchLimits limits)
      : name_(std::move(name)), signal_(signal), limits_(limits) {}
  virtual ~Exporter() = default;

  const std::string& name() const noexcept { return name_; }
  Signal signal() const noexcept { return signal_; }
  const BatchLimits& limits() const noexcept { return limits_; }

  /// Requests under way at the same time. 1 keeps the order of payloads.
  virtual int in_flight_max() const noexcept { return 1; }

  /// Puts the items in the order in which they are sent, for a payload that is stored meanwhile.
  virtual void arrange(Payload& /*payload*/) const {}

  /// A destination reached by HTTP answers here, a local one with `write`.
  virtual bool uses_http() const noexcept { return false; }
  /// The next request for a payload, signed. A message in its place: it cannot be made now (no
  /// credentials).
  virtual std::variant<transport::HttpRequest, Outcome> request(Payload& payload, WallTime now);
  virtual Outcome judge(const Payload& payload, const transport::HttpResponse& response,
                        WallTime now);
  /// Hands the payload to the kernel within `wait`. May be called again for the same payload after
  /// `retry`.
  virtual Outcome write(const Payload& payload, std::chrono::milliseconds wait);

 private:
  const std::string name_;
  const Signal signal_;
  const BatchLimits limits_;
};

/// A stream that several exporters write lines to. One that stopped in the middle of a payload
/// holds it until it is through, so that no line is broken by another.
struct LineStream {
  transport::StreamSink sink;
  const Exporter* holder = nullptr;
  const Exporter* torn_by = nullptr;  ///< who wrote last, if that ended inside a line
};

/// What the exporters of one engine share. One thread: the sender's.
struct ExporterShared {
  std::string region;
  std::shared_ptr<transport::CredentialsChain> credentials;
  std::shared_ptr<transport::ClockSkew> skew = std::make_shared<transport::ClockSkew>();
  std::shared_ptr<LineStream> standard_output =
      std::make_shared<LineStream>(LineStream{transport::StreamSink::standard_output()});
};

/// How datums of PutMetricData are written, by the flusher and in the request.
inline DatumFormat datum_format(const Config& config) noexcept {
  return config.metric_data_format == MetricDataFormat::cbor ? DatumFormat::cbor
                                                             : DatumFormat::json;
}

/// Exporters for a resolved and valid configuration; a null pointer where a signal goes nowhere.
std::unique_ptr<Exporter> make_metrics_exporter(const Config& config,
                                                const std::shared_ptr<ExporterShared>& shared);
std::unique_ptr<Exporter> make_logs_exporter(const Config& config,
                                             const std::shared_ptr<ExporterShared>& shared);
std::unique_ptr<Exporter> make_traces_exporter(const Config& config,
                                               const std::shared_ptr<ExporterShared>& shared);

}  // namespace spillway::detail
