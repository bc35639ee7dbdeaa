// SPDX-License-Identifier: Apache-2.0
//
// `spillway decode`: what a file of the spool, or a ring of a process that died, holds, as JSON lines.
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <string>
#include <unordered_map>
#include <vector>

#include "spillway/command.hpp"
#include <spillway/encoders/json.hpp>
#include <spillway/encoders/limits.hpp>
#include <spillway/encoders/log_event.hpp>
#include <spillway/encoders/xray.hpp>
#include <spillway/engine/crash_recovery.hpp>
#include <spillway/engine/spool_file.hpp>
#include <spillway/transport/url.hpp>

namespace spillway::cli {
namespace {

constexpr std::string_view usage = R"(usage: spillway decode FILE...

Prints what files of a spool (spool_dir), rings (crash_dir/<service>.<n>/lane-<i>) or the file `metrics`
beside them hold, one JSON object a line for each record: its signal, and its text, or its bytes in base64 where the destination
takes protobuf or CBOR; of a spool also its destination and whether it is intact. A ring's text is the log's
or wide event's JSON, or the span's X-Ray document, of what nobody has acknowledged yet; nothing is redacted. Reads only.
Exit status 1 when a file cannot be read or something of it is damaged.
)";

std::string base64(std::string_view bytes) {
  constexpr std::string_view alphabet =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  for (std::size_t at = 0; at < bytes.size(); at += 3) {
    const std::string_view group = bytes.substr(at, 3);
    std::uint32_t bits = 0;
    for (std::size_t i = 0; i < 3; ++i) {
      bits = bits << 8 | (i < group.size() ? static_cast<unsigned char>(group[i]) : 0U);
    }
    for (std::size_t i = 0; i < 4; ++i) {
      text += i <= group.size() ? alphabet[bits >> (18 - 6 * i) & 63U] : '=';
    }
  }
  return text;
}

/// False: it cannot be read, or is a directory.
bool read_all(const std::string& name, std::string& bytes) {
  std::ifstream input(name, std::ios::binary);
  char piece[1 << 16];
  while (input.read(piece, sizeof piece) || input.gcount() > 0) {
    bytes.append(piece, static_cast<std::size_t>(input.gcount()));
  }
  return input.is_open() && !input.bad();
}

/// By the exporter's name: OTLP is protobuf, "otlp:logs"; CBOR says so, "put-metric-data-cbor".
bool is_binary(std::string_view destination) {
  return destination.starts_with("otlp:") || destination.ends_with("-cbor");
}

/// True: all of it is intact.
bool print_spool_file(const detail::SpoolFile& file) {
  bool intact = true;
  detail::ByteBuffer line;
  for (const detail::SpoolFile::Item& item : file.items) {
    line.clear();
    line.append("{\"signal\":");
    append_json_string(line, signal_name(file.signal));
    line.append(",\"destination\":");
    append_json_string(line, file.destination);
    line.append(",\"stored_ms\":");
    append_number(line, file.created_ms);
    line.append(",\"records\":");
    append_number(line, item.entry.records);
    if (item.entry.time_ms != 0) {
      line.append(",\"time_ms\":");
      append_number(line, item.entry.time_ms);
    }
    line.append(item.intact ? ",\"intact\":true" : ",\"intact\":false");
    if (is_binary(file.destination)) {
      line.append(",\"base64\":");
      append_json_string(line, base64(item.bytes));
    } else {
      line.append(",\"text\":");
      append_json_string(line, item.bytes);
    }
    line.append("}\n");
    std::cout << line.view();
    intact &= item.intact;
  }
  return intact;
}

/// Prints the records of a ring. A record that is in use while it is read may be cut or missing.
class RingPrinter final : public detail::RecoveredRecords {
 public:
  explicit RingPrinter(const std::string& service)
      : log_encoder_(service), xray_encoder_({service, {}, limits::segment_document_bytes_max}) {}

  void begin_process() override {}
  void begin_lane() override { texts_ = {}; }
  void on_context(std::uint32_t /*trace_flags*/, std::span<const std::byte> body) override {
    detail::ContextBody head{};
    std::memcpy(&head, body.data(), sizeof head);
    context_.assign(reinterpret_cast<const char*>(body.data()) + sizeof head,
                    body.size() - sizeof head);
    const std::string_view text = context_;
    const std::size_t user_at = head.tenant_bytes;
    const std::size_t request_at = user_at + head.user_bytes;
    texts_ = {text.substr(0, user_at), text.substr(user_at, head.user_bytes),
              text.substr(request_at, head.request_id_bytes), head.trace_id};
  }
  void on_log(const detail::SiteInfo& site, std::uint32_t /*dead_site*/, std::int64_t wall_ns,
              std::uint64_t span_id, std::span<const std::byte> values) override {
    text_.clear();
    log_encoder_.append_json({&site, wall_ns, span_id, &texts_, values},
                             limits::log_event_bytes_max, text_);
    print(detail::Signal::logs, text_.view());
  }
  void on_event(const detail::SiteInfo& site, std::uint32_t /*dead_site*/, std::int64_t wall_ns,
                std::uint64_t span_id, std::span<const std::byte> values) override {
    text_.clear();
    log_encoder_.append_json({&site, wall_ns, span_id, &texts_, values},
                             limits::log_event_bytes_max, text_);
    print(detail::Signal::metrics, text_.view());
  }
  void on_sample(const detail::SeriesKey& series, std::int64_t wall_ns, double value) override {
    begin_metric(series, wall_ns / 1'000'000);
    text_.append(",\"value\":");
    append_number(text_, value);
    end_metric(series);
  }
  void on_point(const detail::SeriesKey& series,
                const detail::CrashMetricsReader::Point& point) override {
    begin_metric(series, point.head.time_ms);
    text_.append(",\"count\":");
    append_number(text_, point.head.count);
    const std::pair<const char*, double> numbers[] = {
        {"sum", point.head.sum}, {"min", point.head.minimum}, {"max", point.head.maximum}};
    for (const auto& [name, number] : numbers) {
      text_.append(",\"");
      text_.append(name);
      text_.append("\":");
      append_number(text_, number);
    }
    end_metric(series);
  }
  void on_span(std::string_view name, std::int64_t start_ns, std::int64_t end_ns,
               const detail::SpanBody& body, std::span<const std::byte> entries) override {
    std::vector<std::byte>& all = parts_[body.span_id];
    all.insert(all.end(), entries.begin(), entries.end());
    detail::SpanView span{name, start_ns, std::max(start_ns, end_ns), body, all};
    span.body.entry_bytes = static_cast<std::uint32_t>(all.size());
    document_.clear();
    xray_encoder_.encode({&span, 1}, texts_, document_);
    parts_.erase(body.span_id);
    for (const detail::PayloadItem& item : document_.items) {
      print(detail::Signal::spans, document_.item(item));
    }
  }
  void on_span_part(std::uint64_t span_id, std::span<const std::byte> entries) override {
    std::vector<std::byte>& part = parts_[span_id];
    part.insert(part.end(), entries.begin(), entries.end());
  }

 private:
  void begin_metric(const detail::SeriesKey& series, std::int64_t time_ms) {
    text_.clear();
    text_.append("{\"time_ms\":");
    append_number(text_, time_ms);
    text_.append(",\"metric\":");
    append_json_string(text_, series.name);
  }
  void end_metric(const detail::SeriesKey& series) {
    text_.append(",\"dimensions\":{");
    for (std::size_t i = 0; i < series.dimensions.size(); ++i) {
      if (i != 0) text_.append(",");
      append_json_string(text_, series.dimensions[i].name);
      text_.append(":");
      append_json_string(text_, series.dimensions[i].value);
    }
    text_.append("}}");
    print(detail::Signal::metrics, text_.view());
  }
  void print(detail::Signal signal, std::string_view text) {
    line_.clear();
    line_.append("{\"signal\":");
    append_json_string(line_, signal_name(signal));
    line_.append(",\"text\":");
    append_json_string(line_, text);
    line_.append("}\n");
    std::cout << line_.view();
  }

  detail::LogEncoder log_encoder_;
  detail::XrayEncoder xray_encoder_;
  std::string context_;
  detail::ContextTexts texts_;
  std::unordered_map<std::uint64_t, std::vector<std::byte>>
      parts_;  // of spans that come behind them
  detail::Payload document_{std::pmr::get_default_resource()};
  detail::ByteBuffer text_;
  detail::ByteBuffer line_;
};

/// Nothing: it is no ring. False: not all of it can be read.
std::optional<bool> print_ring(const std::filesystem::path& path) {
  const std::string lane = path.filename();
  if (!lane.starts_with("lane-") && !lane.starts_with("metrics")) return std::nullopt;
  const std::filesystem::path box = std::filesystem::absolute(path).parent_path();
  const std::string name = box.filename();
  RingPrinter printer(
      transport::percent_decode(std::string_view(name).substr(0, name.rfind('.'))).value_or(name));
  const auto counts = detail::CrashRecovery::look_at(box, lane, printer);
  if (!counts) return std::nullopt;
  if (counts->unreadable_bytes == 0 && counts->left == 0) return true;
  std::cerr << "spillway decode: " << path.string() << ": " << counts->unreadable_bytes
            << " bytes cannot be read\n";
  return false;
}

}  // namespace

int run_decode(Arguments arguments) {
  if (arguments.size() == 1 && (arguments[0] == "--help" || arguments[0] == "-h")) {
    std::cout << usage;
    return 0;
  }
  if (arguments.empty() || arguments[0].starts_with("-")) {
    std::cerr << usage;
    return exit_usage;
  }
  bool good = true;
  for (const std::string_view name : arguments) {
    std::string bytes;
    if (!read_all(std::string(name), bytes)) {
      std::cerr << "spillway decode: " << name << " cannot be read\n";
      good = false;
    } else if (const auto file = detail::read_spool_file(bytes)) {
      good &= print_spool_file(*file);
    } else if (const auto intact = print_ring(name)) {
      good &= *intact;
    } else {
      std::cerr << "spillway decode: " << name
                << " is no file of a spool, nor a ring with its clock beside it, or its header or "
                   "table is damaged\n";
      good = false;
    }
  }
  return good ? 0 : 1;
}

}  // namespace spillway::cli
