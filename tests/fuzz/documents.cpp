// SPDX-License-Identifier: Apache-2.0
//
// Documents that come from disk or from services: sampling rules and targets, spooled payloads, rings of
// dead processes, credentials, answers of an OTLP receiver, signatures of other services.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include <fcntl.h>
#include <unistd.h>

#include "target.hpp"
#include <spillway/buffers/batch.hpp>
#include <spillway/buffers/ring.hpp>
#include <spillway/encoders/log_event.hpp>
#include <spillway/encoders/otlp.hpp>
#include <spillway/encoders/wide_event.hpp>
#include <spillway/engine/crash_recovery.hpp>
#include <spillway/engine/sampling_rules.hpp>
#include <spillway/engine/spool_file.hpp>
#include <spillway/middleware/resilience/deadline.hpp>
#include <spillway/middleware/signing/http_signature.hpp>
#include <spillway/transport/credential_documents.hpp>

namespace spillway::fuzz {
namespace {

void require_legal(const detail::SamplingRule& rule) {
  require(rule.fixed_rate >= 0 && rule.fixed_rate <= 1, "a rate is from 0 to 1");
}

SPILLWAY_FUZZ_TARGET(local_sampling_rules) {
  std::vector<std::string> errors;
  const auto rules = detail::parse_local_rules(bytes, errors);
  require(rules.size() <= detail::local_rules_max + 1, "rules are bounded");
  if (!errors.empty()) return;
  require(!rules.empty(), "a file without an error has a default");
  for (const detail::SamplingRule& rule : rules) require_legal(rule);
}

SPILLWAY_FUZZ_TARGET(central_sampling_rules) {
  if (const auto page = detail::parse_sampling_rules(bytes)) {
    for (const detail::SamplingRule& rule : page->rules) require_legal(rule);
  }
  if (const auto targets = detail::parse_sampling_targets(bytes)) {
    for (const detail::SamplingTarget& target : targets->targets) {
      require(!target.fixed_rate || (*target.fixed_rate >= 0 && *target.fixed_rate <= 1),
              "a rate is from 0 to 1");
    }
  }
}

SPILLWAY_FUZZ_TARGET(spool_file) {
  if (const auto name = detail::parse_spool_name(bytes)) {
    const auto again = detail::parse_spool_name(name->text());
    require(again && again->text() == name->text(), "a name is read as it was written");
  }
  const auto file = detail::read_spool_file(bytes);
  if (!file) return;
  for (const detail::SpoolFile::Item& item : file->items) {
    require(!item.intact ||
                (item.bytes.size() == item.entry.bytes && item.bytes.data() >= bytes.data() &&
                 item.bytes.data() + item.bytes.size() <= bytes.data() + bytes.size()),
            "an intact item is whole, and inside of the file");
  }
}

/// The box of a dead process, on a file system in memory where there is one.
class Box {
 public:
  Box() {
    if (mkdtemp(path_.data()) == nullptr) {
      path_ = "/tmp/spillway-fuzz-XXXXXX";
      require(mkdtemp(path_.data()) != nullptr, "there is a directory");
    }
  }
  Box(const Box&) = delete;
  Box& operator=(const Box&) = delete;
  ~Box() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  const std::string& path() const { return path_; }
  void write(const char* name, std::string_view bytes) const {
    const int file =
        open((path_ + "/" + name).c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    require(file >= 0 &&
                ::write(file, bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size()),
            "the file is written");
    close(file);
  }

 private:
  std::string path_ = "/dev/shm/spillway-fuzz-XXXXXX";
};

/// Looks at all that it is given, as the flusher does.
class Reader final : public detail::RecoveredRecords {
 public:
  void begin_process() override {}
  void begin_lane() override {}
  void on_context(std::uint32_t, std::span<const std::byte> body) override {
    detail::ContextBody context{};
    std::memcpy(&context, body.data(), sizeof context);
    require(body.size() - sizeof context >= std::size_t{context.tenant_bytes} + context.user_bytes +
                                                context.request_id_bytes +
                                                context.trace_state_bytes,
            "a context's texts are inside of it");
  }
  void on_log(const detail::SiteInfo& site, std::uint32_t, std::int64_t wall_ns,
              std::uint64_t span_id, std::span<const std::byte> values) override {
    ++logs;
    out_.clear();
    const detail::ContextTexts context{};
    detail::LogEncoder("fuzz").append_json({&site, wall_ns, span_id, &context, values}, 1U << 16,
                                           out_);
    const Parsed parsed(out_.view());
    require(parsed.root.is_object(), "a log of a dead process is one");
  }
  void on_event(const detail::SiteInfo& site, std::uint32_t, std::int64_t wall_ns,
                std::uint64_t span_id, std::span<const std::byte> values) override {
    ++events;
    out_.clear();
    const detail::ContextTexts context{};
    detail::WideEventEncoder encoder({.metric_namespace = "Fuzz"}, {},
                                     [](const auto&, const auto&) { return DimensionSets{}; });
    if (encoder.append({&site, wall_ns, span_id, &context, values}, out_) == 0) return;
    const Parsed parsed(out_.view());
    require(parsed.root["_aws"].is_object(), "an event of a dead process is a document");
  }
  void on_sample(const detail::SeriesKey&, std::int64_t, double value) override {
    require(!std::isnan(value) && std::isfinite(value), "a measurement is a number");
  }
  void on_point(const detail::SeriesKey&, const detail::CrashMetricsReader::Point&) override {
    require(false, "a ring has no points");
  }
  void on_span(std::string_view, std::int64_t, std::int64_t, const detail::SpanBody& body,
               std::span<const std::byte> entries) override {
    ++spans;
    require(body.entry_bytes == entries.size(), "a span has its entries");
    read(entries);
  }
  void on_span_part(std::uint64_t, std::span<const std::byte> entries) override { read(entries); }

  std::uint64_t logs = 0;
  std::uint64_t spans = 0;
  std::uint64_t events = 0;

 private:
  // Entries of a dead process are whole: the encoders are told so.
  static void read(std::span<const std::byte> entries) {
    detail::ValueReader reader(entries);
    while (!reader.empty()) {
      const detail::EntryHeader entry = reader.entry();
      require(
          entry.name() == 0 || !detail::name_of(entry.name()).empty() || entry.name() < 1U << 20,
          "a name is known");
      const std::size_t left = reader.rest().size();
      if (entry.type() == detail::ValueType::string) {
        require(left >= sizeof(std::uint32_t), "a text has its length");
        reader.string();
      } else if (entry.type() != detail::ValueType::none) {
        require(left >= sizeof(std::uint64_t), "an entry is whole");
        reader.number();
      }
    }
  }
  detail::ByteBuffer out_;
};

/// The files of a ring: as they come, or a box that is right but for what a death in any place leaves.
SPILLWAY_FUZZ_TARGET(ring_file) {
  static const Box box;
  Input input(bytes);
  if (input.flag()) {
    const std::string clock = input.text();
    box.write("names", input.text(4));
    box.write("clock", clock);
    box.write("lane-0", input.rest());
  } else {
    detail::CrashClock clock{};
    std::memcpy(clock.magic, detail::CrashClock::expected_magic, sizeof clock.magic);
    clock.version = detail::CrashClock::current_version;
    clock.head_bytes = 64;
    clock.ring_bytes = detail::Ring::capacity_min;
    clock.published_at = 0;
    clock.released_at = 8;
    const std::uint64_t settled = input.up_to(3);
    for (auto& signal : clock.settled) signal = {settled, ~settled};
    clock.anchors[0] = {1, 0, 1'795'222'800'000'000'000, 0.5};
    box.write("clock", {reinterpret_cast<const char*>(&clock), sizeof clock});
    box.write("names", input.text(4));
    const std::uint64_t released = input.up_to(255) * 32;
    const std::uint64_t published = released + input.up_to(255) * 16;
    std::string lane(clock.head_bytes + clock.ring_bytes + sizeof(detail::CrashTail), '\0');
    std::memcpy(lane.data(), &published, sizeof published);
    std::memcpy(lane.data() + clock.released_at, &released, sizeof released);
    detail::CrashMark mark{released + input.up_to(7) * 8, input.up_to(3), input.up_to(3), 0};
    mark.check = mark.sum() + input.up_to(1);
    std::memcpy(
        lane.data() + clock.head_bytes + clock.ring_bytes + offsetof(detail::CrashTail, marks),
        &mark, sizeof mark);
    char* const ring = lane.data() + clock.head_bytes;
    std::uint64_t at = released;
    for (const char byte : input.rest()) ring[at++ % clock.ring_bytes] = byte;
    box.write("lane-0", lane);
  }
  Reader reader;
  const auto counts = detail::CrashRecovery::look_at(box.path(), "lane-0", reader);
  require(!counts || (counts->logs == reader.logs && counts->spans == reader.spans &&
                      (counts->measurements == 0 || reader.events != 0)),
          "what was read is counted, and nothing else");
}

SPILLWAY_FUZZ_TARGET(crash_metrics) {
  detail::CrashMetricsReader reader{std::string(bytes)};
  for (std::uint64_t lane = 0; lane < 4; ++lane) static_cast<void>(reader.position_of(lane));
  static_cast<void>(reader.position_of(~std::uint64_t{0}));
  std::size_t read = 0;
  while (const auto* const point = reader.next()) {
    require(point->values.size() == point->head.values, "a point has its values");
    read += sizeof point->head + point->values.size() * sizeof(detail::ValueCount);
    require(read <= bytes.size(), "no byte is read twice");
  }
  require(reader.unreadable_bytes() + read <= bytes.size(),
          "bytes are points, or counted, or neither");
}

SPILLWAY_FUZZ_TARGET(credentials) {
  for (const transport::CredentialsMembers* members :
       {&transport::process_members, &transport::metadata_members, &transport::sso_members}) {
    std::string text(bytes);
    static_cast<void>(transport::credentials_from_json("fuzz", text, *members));
    require(text.find_first_not_of('\0') == std::string::npos, "the text is wiped");
  }
  std::string text(bytes);
  static_cast<void>(transport::credentials_from_sts("fuzz", text));
  static_cast<void>(transport::parse_time(bytes));
}

SPILLWAY_FUZZ_TARGET(otlp_response) {
  static_cast<void>(detail::read_otlp_response(bytes));
  static_cast<void>(detail::read_otlp_status(bytes));
}

SPILLWAY_FUZZ_TARGET(signature) {
  static_cast<void>(middleware::parse_signature_input(bytes));
  const auto member = middleware::find_member(bytes, "spillway");
  require(!member || (member->data() >= bytes.data() &&
                      member->data() + member->size() <= bytes.data() + bytes.size()),
          "a member is a part of its dictionary");
  if (const auto timeout = middleware::parse_timeout(bytes)) {
    require(timeout->count() >= 0, "a time-out is not negative");
  }
}

}  // namespace
}  // namespace spillway::fuzz
