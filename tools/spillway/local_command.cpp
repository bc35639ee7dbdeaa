// SPDX-License-Identifier: Apache-2.0
//
// `spillway local`: a Receiver until SIGTERM or SIGINT.
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "local/json.hpp"
#include "local/receiver.hpp"
#include "spillway/command.hpp"
#include <spillway/transport/text.hpp>

namespace spillway::cli {
namespace {

using local::Receiver;
using transport::parse_number;

constexpr std::string_view usage = R"(usage: spillway local [options]

Receives PutMetricData, PutLogEvents, PutTraceSegments, OTLP in protobuf (/v1/metrics, /v1/logs,
/v1/traces) and the X-Ray daemon's datagrams on loopback, checks them as strictly as AWS, and shows
what arrived under /_spillway/.

  --host ADDRESS           a loopback address (127.0.0.1)
  --port N                 HTTP port, 0 for any free one (4566)
  --udp-port N             port of the X-Ray daemon, 0 for any free one (2000)
  --access-key ID --secret KEY
                           who may sign (local, local-secret)
  --credentials ID:SECRET[:TOKEN]
                           one more who may sign; may be given again
  --no-auth                take requests with any signature, or none
  --fault SPEC             go wrong: KIND[:NAME=VALUE,...]; may be given again
                           KIND throttle error_500 error_503 partial_reject delay lost_response
                                refuse expired_token skew
                           service=monitoring|logs|xray  operation=NAME  count=N
                           probability=P,seed=N  ms=N (delay)  seconds=N (skew)
                           retry_after_ms=TEXT  retry_after=TEXT  rejected=N
                           reason=too_old|expired|too_new  code=TEXT (partial_reject)
  --keep-messages N        how many log events to keep for reading; counts go on (1048576)
  --keep-documents N       the same for trace documents (100000)
  --port-file FILE         write the addresses there as JSON, once ready
)";

struct Settings {
  local::Options options;
  std::string port_file;
  bool help = false;
};

/// Reads arguments one by one and collects what is wrong with all of them.
class Reader {
 public:
  explicit Reader(Arguments arguments) : arguments_(arguments) {
    settings_.options.http_port = 4566;
    settings_.options.udp_port = 2000;
  }

  std::variant<Settings, std::vector<std::string>> read() {
    while (at_ < arguments_.size()) read_option(arguments_[at_++]);
    if (access_key_.has_value() != secret_.has_value()) {
      problems_.emplace_back("--access-key and --secret go together");
    } else if (access_key_) {
      credentials_.emplace_back(*access_key_, *secret_);
    }
    if (!credentials_.empty()) settings_.options.credentials = credentials_;
    if (!problems_.empty()) return problems_;
    return settings_;
  }

 private:
  void read_option(std::string_view name) {
    if (name == "--help" || name == "-h") {
      settings_.help = true;
    } else if (name == "--no-auth") {
      settings_.options.check_signatures = false;
    } else if (name == "--host") {
      settings_.options.host = value_of(name);
    } else if (name == "--port") {
      read_number(name, settings_.options.http_port);
    } else if (name == "--udp-port") {
      read_number(name, settings_.options.udp_port);
    } else if (name == "--keep-messages") {
      read_number(name, settings_.options.log_events_kept_max);
    } else if (name == "--keep-documents") {
      read_number(name, settings_.options.trace_documents_kept_max);
    } else if (name == "--access-key") {
      access_key_ = value_of(name);
    } else if (name == "--secret") {
      secret_ = value_of(name);
    } else if (name == "--credentials") {
      read_credentials(value_of(name));
    } else if (name == "--fault") {
      read_fault(value_of(name));
    } else if (name == "--port-file") {
      settings_.port_file = value_of(name);
    } else {
      problems_.push_back("there is no option '" + std::string(name) + "'");
    }
  }

  std::string value_of(std::string_view name) {
    if (at_ < arguments_.size()) return std::string(arguments_[at_++]);
    problems_.push_back(std::string(name) + " needs a value");
    return {};
  }

  template <class Number>
  void read_number(std::string_view name, Number& number) {
    const std::string text = value_of(name);
    const auto parsed = parse_number<Number>(text);
    if (parsed) {
      number = *parsed;
    } else if (!text.empty()) {
      problems_.push_back(std::string(name) + " '" + text + "' must be a number from 0 to " +
                          std::to_string(std::numeric_limits<Number>::max()));
    }
  }

  void read_credentials(const std::string& text) {
    const std::size_t first = text.find(':');
    const std::string id = text.substr(0, first);
    const std::string rest = first == std::string::npos ? "" : text.substr(first + 1);
    const std::size_t second = rest.find(':');
    const std::string secret = rest.substr(0, second);
    // The value is not repeated: it may be half a secret.
    if (id.empty() || secret.empty()) {
      problems_.emplace_back("--credentials must be of the form ID:SECRET or ID:SECRET:TOKEN");
      return;
    }
    credentials_.emplace_back(id, secret,
                              second == std::string::npos ? "" : rest.substr(second + 1));
  }

  void read_fault(const std::string& spec) {
    local::FaultResult result = local::parse_fault(spec);
    if (const auto* const error = std::get_if<local::FaultError>(&result)) {
      problems_.push_back("--fault '" + spec + "': " + error->message);
    } else {
      settings_.options.faults.push_back(std::get<local::Fault>(std::move(result)));
    }
  }

  Arguments arguments_;
  std::size_t at_ = 0;
  Settings settings_;
  std::optional<std::string> access_key_;
  std::optional<std::string> secret_;
  std::vector<transport::Credentials> credentials_;
  std::vector<std::string> problems_;
};

// Whole or not at all: a script that waits for the file must not read half of it.
void write_port_file(const std::string& path, const Receiver& receiver) {
  local::JsonWriter json;
  json.begin_object().field("endpoint", receiver.endpoint());
  json.field("http_port", receiver.http_port());
  json.field("daemon_address", receiver.daemon_address());
  json.field("udp_port", receiver.udp_port()).end_object();
  const std::string temporary = path + ".tmp";
  std::ofstream file(temporary);
  file << json.take() << "\n";
  file.close();
  if (!file) throw std::runtime_error("cannot write " + temporary);
  std::filesystem::rename(temporary, path);
}

}  // namespace

int run_local(Arguments arguments) {
  const auto result = Reader(arguments).read();
  if (const auto* const problems = std::get_if<std::vector<std::string>>(&result)) {
    for (const std::string& problem : *problems) {
      std::cerr << "spillway local: " << problem << "\n";
    }
    return exit_usage;
  }
  const Settings& settings = std::get<Settings>(result);
  if (settings.help) {
    std::cout << usage;
    return 0;
  }

  // Before the first thread, so that all of them leave the signals to this one.
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);

  std::optional<Receiver> receiver;
  try {
    receiver.emplace(settings.options);
  } catch (const std::invalid_argument& error) {
    std::cerr << "spillway local: --host: " << error.what() << "\n";
    return exit_usage;
  }
  if (!settings.port_file.empty()) write_port_file(settings.port_file, *receiver);
  std::cout << "spillway local: " << receiver->endpoint() << " udp " << receiver->daemon_address()
            << std::endl;
  int signal = 0;
  sigwait(&signals, &signal);
  return 0;
}

}  // namespace spillway::cli
