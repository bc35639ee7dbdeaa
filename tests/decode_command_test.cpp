// SPDX-License-Identifier: Apache-2.0
//
// `spillway decode` as a person runs it.
#include <filesystem>
#include <string>

#include <gtest/gtest.h>
#include <support/child_process.hpp>
#include <support/engine_fixture.hpp>
#include <support/json.hpp>
#include <support/program.hpp>
#include <support/temporary_file.hpp>

#include <spillway/engine/exporter.hpp>
#include <spillway/engine/spool_file.hpp>

namespace spillway {
namespace {

struct Decode : testing::Program {
  explicit Decode(std::vector<std::string> files)
      : testing::Program(SPILLWAY_CLI, [&] {
          files.insert(files.begin(), "decode");
          return files;
        }()) {}
};

std::string file_of(std::string_view destination) {
  detail::Payload payload(std::pmr::get_default_resource());
  payload.signal = detail::Signal::logs;
  payload.bytes.append("{\"n\":1}");
  payload.end_item(0, 1, 5000, 1);
  payload.bytes.append(std::string_view("\0\xff\x10\x20", 4));
  payload.end_item(7, 2, 0, 2);
  detail::ByteBuffer bytes;
  append_spool_file(payload, destination, 1234, bytes);
  return std::string(bytes.view());
}

class DecodeCommandTest : public ::testing::Test {
 protected:
  testing::TemporaryDirectory directory;
};

TEST_F(DecodeCommandTest, PrintsALineForEachRecord) {
  Decode program({directory.write("a", file_of("put-log-events"))});
  const testing::Json first(program.read_line());
  EXPECT_EQ(first["signal"].string(), "logs");
  EXPECT_EQ(first["destination"].string(), "put-log-events");
  EXPECT_EQ(first["stored_ms"].number(), 1234);
  EXPECT_EQ(first["records"].number(), 1);
  EXPECT_EQ(first["time_ms"].number(), 5000);
  EXPECT_TRUE(first["intact"].boolean());
  EXPECT_EQ(first["text"].string(), "{\"n\":1}");
  const testing::Json second(program.read_line());
  EXPECT_EQ(second["records"].number(), 2);
  EXPECT_FALSE(second.has("time_ms"));
  EXPECT_EQ(program.read_all(), "");
  EXPECT_EQ(program.finish(0), 0);
}

// Each exporter that writes to a spool, by the name that it gives itself.
TEST_F(DecodeCommandTest, WhatIsNoTextIsBase64) {
  const testing::AwsEnvironment environment;
  const auto shared = std::make_shared<detail::ExporterShared>();
  shared->region = "eu-west-1";
  Config json = testing::aws_config();
  Config binary = json;
  binary.metric_data_format = MetricDataFormat::cbor;
  Config otlp = json;
  otlp.metrics = MetricsTo::otlp;
  otlp.logs = LogsTo::otlp;
  otlp.traces = TracesTo::otlp;
  const auto is_base64 = [&](const std::unique_ptr<detail::Exporter>& exporter) {
    Decode program({directory.write("a", file_of(exporter->name()))});
    const testing::Json line(program.read_line());
    EXPECT_EQ(line[line.has("base64") ? "base64" : "text"].string(),
              line.has("base64") ? "eyJuIjoxfQ==" : "{\"n\":1}");
    program.read_all();
    EXPECT_EQ(program.finish(0), 0);
    return line.has("base64");
  };
  EXPECT_FALSE(is_base64(make_metrics_exporter(json, shared)));
  EXPECT_FALSE(is_base64(make_logs_exporter(json, shared)));
  EXPECT_FALSE(is_base64(make_traces_exporter(json, shared)));
  EXPECT_TRUE(is_base64(make_metrics_exporter(binary, shared)));
  EXPECT_TRUE(is_base64(make_metrics_exporter(otlp, shared)));
  EXPECT_TRUE(is_base64(make_logs_exporter(otlp, shared)));
  EXPECT_TRUE(is_base64(make_traces_exporter(otlp, shared)));
}

TEST_F(DecodeCommandTest, WhatIsDamagedIsShownAndSaid) {
  std::string damaged = file_of("put-log-events");
  damaged[damaged.size() - 5] = '?';
  Decode program({directory.write("a", damaged)});
  const testing::Json first(program.read_line());
  EXPECT_FALSE(first["intact"].boolean());
  EXPECT_EQ(first["text"].string(), "{\"n\":1?");
  EXPECT_TRUE(testing::Json(program.read_line())["intact"].boolean());
  program.read_all();
  EXPECT_EQ(program.finish(0), 1);
}

// ---- Rings ----

/// Leaves a ring in `directory`, whose path it returns.
std::string leave_ring(const std::string& directory) {
  testing::in_killed_child([&] {
    Config config;
    config.service = "orders/eu";
    config.crash_dir = directory;
    config.traces = TracesTo::xray_daemon;
    config.trace_sample_rate = 1.0;
    testing::TestEngine test(config);
    const Context context({.tenant = "acme", .request_id = "r-1"});
    const Scope scope(context);
    SPILLWAY_WARN(test.engine, "order \"placed\"", {"order_id", 17}, {"card", "4111111111111111"});
    {
      Span span = test.engine.span("charge-card");
      span.annotate("provider", "acme");
    }
    testing::kill_self();
  });
  return directory + "/orders%2Feu.0/lane-0";
}

TEST_F(DecodeCommandTest, PrintsWhatMeasurementsAmountTo) {
  const std::string crash_dir = directory.path("crash");
  testing::in_killed_child([&] {
    Config config;
    config.service = "orders";
    config.crash_dir = crash_dir;
    testing::TestEngine test(config);
    const Histogram latency = test.engine.histogram("Latency", Unit::none, {{"Route", "/orders"}});
    latency.record(2);
    latency.record(3);
    test.advance(std::chrono::milliseconds(150));
    latency.sample(7);
    testing::kill_self();
  });
  Decode file({crash_dir + "/orders.0/metrics"});
  const testing::Json line(file.read_line());
  EXPECT_EQ(line["signal"].string(), "metrics");
  const testing::Json point(line["text"].string());
  EXPECT_EQ(point["metric"].string(), "Latency");
  EXPECT_EQ(point["count"].number(), 2);
  EXPECT_EQ(point["sum"].number(), 5);
  EXPECT_EQ(point["min"].number(), 2);
  EXPECT_EQ(point["max"].number(), 3);
  EXPECT_EQ(point["dimensions"]["Route"].string(), "/orders");
  EXPECT_EQ(file.read_all(), "");
  EXPECT_EQ(file.finish(0), 0);
  Decode ring({crash_dir + "/orders.0/lane-0"});
  const testing::Json sample(testing::Json(ring.read_line())["text"].string());
  EXPECT_EQ(sample["metric"].string(), "Latency");
  EXPECT_EQ(sample["value"].number(), 7);
  EXPECT_EQ(ring.read_all(), "");
  EXPECT_EQ(ring.finish(0), 0);
}

TEST_F(DecodeCommandTest, PrintsTheRecordsOfARing) {
  const std::string ring = leave_ring(directory.path("crash"));
  ASSERT_TRUE(std::filesystem::exists(ring)) << ring;
  for (int times = 0; times < 2; ++times) {  // It stays as it is.
    Decode program({ring});
    const testing::Json log(program.read_line());
    EXPECT_EQ(log["signal"].string(), "logs");
    const testing::Json text(log["text"].string());
    EXPECT_EQ(text["message"].string(), "order \"placed\"");
    EXPECT_EQ(text["level"].string(), "WARN");
    EXPECT_EQ(text["service"].string(), "orders/eu");
    EXPECT_EQ(text["order_id"].number(), 17);
    EXPECT_EQ(text["card"].string(), "4111111111111111") << "as it was recorded";
    EXPECT_EQ(text["tenant"].string(), "acme");
    EXPECT_EQ(text["request_id"].string(), "r-1");
    const testing::Json span(program.read_line());
    EXPECT_EQ(span["signal"].string(), "spans");
    const testing::Json document(span["text"].string());
    EXPECT_EQ(document["annotations"]["provider"].string(), "acme");
    EXPECT_EQ(program.read_all(), "");
    EXPECT_EQ(program.finish(0), 0);
  }
}

TEST_F(DecodeCommandTest, ARingThatIsDamagedIsSaid) {
  const std::string ring = leave_ring(directory.path("crash"));
  std::filesystem::resize_file(ring, 5000);
  Decode program({ring});
  EXPECT_NE(program.read_all().find("5000 bytes cannot be read"), std::string::npos);
  EXPECT_EQ(program.finish(0), 1);
  std::filesystem::remove(std::filesystem::path(ring).parent_path() / "clock");
  Decode without_clock({ring});
  EXPECT_NE(without_clock.read_all().find("is no file of a spool, nor a ring"), std::string::npos);
  EXPECT_EQ(without_clock.finish(0), 1);
}

TEST_F(DecodeCommandTest, SaysWhatItCannotRead) {
  Decode program(
      {directory.path(""), directory.path("missing"), directory.write("other", "no spool")});
  EXPECT_EQ(program.read_line(), "spillway decode: " + directory.path("") + " cannot be read");
  EXPECT_EQ(program.read_line(),
            "spillway decode: " + directory.path("missing") + " cannot be read");
  EXPECT_EQ(program.read_line(),
            "spillway decode: " + directory.path("other") +
                " is no file of a spool, nor a ring with its clock beside it, or its header or "
                "table is damaged");
  program.read_all();
  EXPECT_EQ(program.finish(0), 1);
  Decode nothing({});
  EXPECT_TRUE(nothing.read_line().starts_with("usage: spillway decode"));
  nothing.read_all();
  EXPECT_EQ(nothing.finish(0), 2);
}

}  // namespace
}  // namespace spillway
