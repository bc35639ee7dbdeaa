// SPDX-License-Identifier: Apache-2.0
//
// Libraries that record with their host's engine and are unloaded before it has read what they recorded; another one is
// loaded in their place, and the first one again. Nothing may be read from the memory that is gone, nor be taken for
// what stood there before.
#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include <dlfcn.h>
#include <support/engine_fixture.hpp>
#include <support/gunzip.hpp>

namespace spillway {
namespace {

using namespace std::chrono_literals;
using testing::body_of;
using testing::Json;

/// A library while it is loaded.
class Plugin {
 public:
  explicit Plugin(const char* path) : path_(path), library_(dlopen(path, RTLD_NOW | RTLD_LOCAL)) {
    if (library_ == nullptr) ADD_FAILURE() << dlerror();
  }
  Plugin(const Plugin&) = delete;
  Plugin& operator=(const Plugin&) = delete;
  ~Plugin() {
    dlclose(library_);
    EXPECT_EQ(dlopen(path_, RTLD_NOW | RTLD_NOLOAD), nullptr) << "it is gone";
  }
  void record(Engine& engine, int count) const {
    const auto function =
        reinterpret_cast<void (*)(Engine&, int)>(dlsym(library_, "record_from_plugin"));
    ASSERT_NE(function, nullptr);
    function(engine, count);
  }

 private:
  const char* const path_;
  void* const library_;
};

TEST(PluginTest, WhatALibraryRecordedOutlivesIt) {
  const testing::AwsEnvironment environment;
  Config config = testing::aws_config();
  config.metrics = MetricsTo::emf_logs;
  testing::TestEngine test(config);
  for (int round = 0; round < 3; ++round) {
    for (const char* const path : {PLUGIN_A, PLUGIN_B}) {
      Plugin(path).record(test.engine, 5);
    }
  }
  test.clock.advance(61s);
  EXPECT_TRUE(test.engine.flush(1s));
  const Stats stats = test.engine.shutdown(1s);
  EXPECT_EQ(stats.logs.delivered, 30U);
  EXPECT_EQ(stats.spans.delivered, 30U);
  EXPECT_EQ(stats.metrics.delivered, 60U) << "of the counter and of the events";

  std::map<std::string, int> found;
  for (const transport::HttpRequest& request : test.http.requests()) {
    const std::string body(body_of(request));
    for (const std::string name : {"A", "B"}) {
      for (const std::string text : {"message of ", "work of ", "key_of_", "Took"}) {
        for (std::size_t at = 0; (at = body.find(text + name, at)) != std::string::npos; ++at) {
          ++found[text + name];
        }
      }
    }
  }
  for (const std::string name : {"A", "B"}) {
    EXPECT_EQ(found["message of " + name], 15);
    EXPECT_EQ(found["work of " + name], 15);
    EXPECT_EQ(found["key_of_" + name], 30) << "of spans and of logs";
    EXPECT_EQ(found["Took" + name], 30) << "where it is defined and where it is";
  }
}

}  // namespace
}  // namespace spillway
