// SPDX-License-Identifier: Apache-2.0
#include <utility>

#include <spillway/buffers/byte_buffer.hpp>
#include <spillway/encoders/limits.hpp>
#include <spillway/engine/socket_exporter.hpp>
#include <spillway/transport/tcp_sink.hpp>

namespace spillway::detail {

using std::chrono::milliseconds;
using transport::Failure;

namespace {

// One document a datagram. Loopback pushes back on nobody: what finds the agent's socket buffer full
// is gone without a word, and by default that holds some 250 small datagrams or three of the largest.
// So documents go out as soon as they are made, and not faster than an agent takes them that has to
// wait for its turn on the processor.
class DatagramExporter final : public Exporter {
 public:
  /// Either `head` goes before each document, or `tail` behind it.
  DatagramExporter(std::string name, Signal signal, std::string address, std::string_view head,
                   char tail)
      : Exporter(std::move(name), signal, {512, 256U << 10, 0, 0, milliseconds(0)}),
        sink_(std::move(address)),
        head_(head),
        tail_(tail) {}

  Outcome write(const Payload& payload, milliseconds /*wait*/) override {
    if (payload.sequence != sequence_) {
      sequence_ = payload.sequence;
      next_ = 0;
      done_ = {};
    }
    for (; next_ < payload.items.size(); ++next_) {
      if (credit_bytes_ <= 0) {
        credit_bytes_ += pace_bytes;
        return so_far();
      }
      const PayloadItem& item = payload.items[next_];
      credit_bytes_ -= item.bytes + datagram_overhead_bytes;
      switch (send(payload.item(item))) {
        case transport::DatagramResult::sent:
          done_.delivered += item.records;
          break;
        case transport::DatagramResult::too_large:
          done_.dropped += item.records;
          done_.cause = DropCause::too_large;
          break;
        case transport::DatagramResult::busy:
          return so_far();
        case transport::DatagramResult::failed: {
          if (done_.dropped != 0) return so_far();  // They have a cause of their own.
          Outcome retry;
          retry.next = Outcome::Next::retry;
          retry.failure = Failure::transient;
          retry.cause = DropCause::retries_exhausted;
          // What went out before is delivered whatever becomes of the rest.
          retry.delivered = std::exchange(done_.delivered, 0);
          retry.message = name() + ": " + sink_.error();
          return retry;
        }
      }
    }
    return done_;
  }

 private:
  // Of buffer at the other side, per millisecond: the sender waits that long before it goes on.
  static constexpr std::int64_t pace_bytes = 32 << 10;
  // What the kernel charges for a datagram beside its bytes.
  static constexpr std::int64_t datagram_overhead_bytes = 1024;

  /// It goes on later; what went out is delivered, also when there is no later.
  Outcome so_far() {
    Outcome outcome = std::exchange(done_, {});
    outcome.next = Outcome::Next::again;
    return outcome;
  }
  transport::DatagramResult send(std::string_view document) {
    if (tail_ == 0) return sink_.send(head_, document);
    return sink_.send(document, std::string_view(&tail_, 1));
  }

  transport::UdpSink sink_;
  const std::string_view head_;
  const char tail_;
  std::int64_t credit_bytes_ = pace_bytes;
  std::uint64_t sequence_ = 0;
  std::size_t next_ = 0;
  Outcome done_;
};

// Lines over TCP. A line is delivered when the agent's kernel has acknowledged all of it: those that
// a connection took along when it broke are written again on the next one. One that the agent had in
// part is there twice then, the first time without its end, which makes it no document.
class AgentStreamExporter final : public Exporter {
 public:
  AgentStreamExporter(std::string name, std::string address)
      : Exporter(std::move(name), Signal::metrics,
                 {65'536, limits::log_batch_bytes_max, 1, 0, milliseconds(0)}),
        sink_(std::move(address)) {}

  Outcome write(const Payload& payload, milliseconds wait) override {
    Outcome outcome;
    if (payload.sequence != sequence_) begin(payload);
    if (!sink_.is_up()) {
      switch (sink_.connect(wait)) {
        case transport::TcpSink::Link::up:
          go_on_at_line();
          break;
        case transport::TcpSink::Link::pending:
          outcome.next = Outcome::Next::again;
          return outcome;
        case transport::TcpSink::Link::failed:
          return failed(std::move(outcome));
      }
    }
    std::string_view rest = text_.view().substr(sent_bytes_);
    const transport::WriteResult result = sink_.write(rest, wait);
    sent_bytes_ = text_.size() - rest.size();
    outcome.delivered = take_acknowledged(payload);
    if (result == transport::WriteResult::failed) {
      outcome.uncertain = sent_bytes_ > done_bytes_;
      return failed(std::move(outcome));
    }
    if (lines_done_ < payload.items.size()) outcome.next = Outcome::Next::again;
    return outcome;
  }

 private:
  void begin(const Payload& payload) {
    sequence_ = 0;
    text_.clear();
    for (const PayloadItem& item : payload.items) {
      text_.append(payload.item(item));
      text_.append('\n');
    }
    sequence_ = payload.sequence;
    lines_done_ = 0;
    done_bytes_ = 0;
    sent_bytes_ = 0;
    line_begin_ = 0;
    acknowledged_before_ = sink_.acknowledged();
  }
  /// On a new connection: with the first line that is not there.
  void go_on_at_line() {
    sent_bytes_ = done_bytes_;
    acknowledged_before_ = 0;
    line_begin_ = done_bytes_;
  }
  std::uint64_t take_acknowledged(const Payload& payload) {
    const std::uint64_t there = line_begin_ + (sink_.acknowledged() - acknowledged_before_);
    std::uint64_t records = 0;
    while (lines_done_ < payload.items.size() &&
           done_bytes_ + payload.items[lines_done_].bytes + 1 <= there) {
      done_bytes_ += payload.items[lines_done_].bytes + 1;
      records += payload.items[lines_done_++].records;
    }
    return records;
  }
  Outcome failed(Outcome outcome) const {
    outcome.next = Outcome::Next::retry;
    outcome.failure = Failure::transient;
    outcome.cause = DropCause::retries_exhausted;
    outcome.message = name() + ": " + sink_.error();
    return outcome;
  }

  transport::TcpSink sink_;
  std::uint64_t sequence_ = 0;  // of the payload that text_ is made of
  ByteBuffer text_;
  std::size_t lines_done_ = 0;             // of the payload, acknowledged
  std::size_t done_bytes_ = 0;             // of text_: up to the end of the last of them
  std::size_t sent_bytes_ = 0;             // of text_: the kernel has them
  std::size_t line_begin_ = 0;             // of text_: where this connection began with it
  std::uint64_t acknowledged_before_ = 0;  // of the connection, when it began with it
};

}  // namespace

std::optional<AgentEndpoint> parse_agent_endpoint(std::string_view text) {
  constexpr std::string_view tcp = "tcp://";
  constexpr std::string_view udp = "udp://";
  const bool is_udp = text.starts_with(udp);
  if (!is_udp && !text.starts_with(tcp)) return std::nullopt;
  text.remove_prefix(tcp.size());
  if (text.ends_with('/')) text.remove_suffix(1);
  if (transport::parse_host_port(text).host.empty()) return std::nullopt;
  return AgentEndpoint{is_udp, std::string(text)};
}

std::unique_ptr<Exporter> make_xray_daemon_exporter(const Config& config) {
  return std::make_unique<DatagramExporter>("xray:daemon", Signal::spans,
                                            config.xray_daemon_address.get(),
                                            limits::xray_daemon_header, '\0');
}

std::unique_ptr<Exporter> make_emf_agent_exporter(const Config& config) {
  AgentEndpoint endpoint = parse_agent_endpoint(config.emf_agent_endpoint.get()).value();
  if (endpoint.is_udp) {
    return std::make_unique<DatagramExporter>("emf:agent", Signal::metrics,
                                              std::move(endpoint.address), "", '\n');
  }
  return std::make_unique<AgentStreamExporter>("emf:agent", std::move(endpoint.address));
}

}  // namespace spillway::detail
