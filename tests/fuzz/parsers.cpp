// SPDX-License-Identifier: Apache-2.0
//
// Everything that reads what others wrote: files, variables, headers and replies.
#include <algorithm>
#include <chrono>
#include <fstream>
#include <vector>

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "target.hpp"
#include <spillway/encoders/redaction.hpp>
#include <spillway/engine/config.hpp>
#include <spillway/engine/context.hpp>
#include <spillway/engine/trace_header.hpp>
#include <spillway/transport/aws_error.hpp>
#include <spillway/transport/endpoint.hpp>
#include <spillway/transport/profile.hpp>
#include <spillway/transport/url.hpp>

namespace spillway::fuzz {
namespace {

using detail::parse_redaction_policy;
using detail::Redactor;

std::vector<std::string_view> lines_of(std::string_view text) {
  std::vector<std::string_view> lines;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    lines.push_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return lines;
}

SPILLWAY_FUZZ_TARGET(profile) {
  for (const auto& [name, section] : transport::parse_profile_file(bytes)) {
    require(name.find('\n') == std::string::npos, "a section's name is one line");
    for (const auto& [key, value] : section.settings) {
      require(!key.empty(), "a setting has a name");
      require(value.find('\n') == std::string::npos, "a setting is one line");
      require(section.get(key) == value, "a setting is found");
    }
  }
}

SPILLWAY_FUZZ_TARGET(url) {
  const auto url = transport::parse_url(bytes);
  if (!url) return;
  require(url->scheme == "http" || url->scheme == "https", "only http and https");
  require(!url->host.empty() && url->port != 0, "host and port are there");
  require(url->host.find_first_of("@/\\?# \r\n") == std::string::npos, "a host is a host alone");
  require(url->path.starts_with('/'), "a path begins with a slash");
  for (const std::string* part : {&url->host, &url->path, &url->query}) {
    require(std::none_of(part->begin(), part->end(),
                         [](char c) { return static_cast<unsigned char>(c) <= 0x20 || c == 0x7f; }),
            "nothing that could split a request line");
  }
  const auto again = transport::parse_url(url->origin() + url->path +
                                          (url->query.empty() ? "" : "?" + url->query));
  require(again && again->origin() == url->origin() && again->path == url->path &&
              again->query == url->query && again->port == url->port,
          "what was parsed reads back the same");
}

SPILLWAY_FUZZ_TARGET(percent_encode) {
  for (const bool keep_slash : {false, true}) {
    const std::string encoded = transport::percent_encode(bytes, keep_slash);
    std::string decoded;
    for (std::size_t i = 0; i < encoded.size(); ++i) {
      if (encoded[i] != '%') {
        decoded += encoded[i];
        continue;
      }
      require(i + 2 < encoded.size(), "two digits follow a percent sign");
      decoded += static_cast<char>(std::stoi(encoded.substr(i + 1, 2), nullptr, 16));
      i += 2;
    }
    require(decoded == bytes, "what was encoded reads back the same");
  }
}

SPILLWAY_FUZZ_TARGET(trace_header) {
  const auto parent = parse_trace_header(bytes);
  if (!parent) return;
  require(static_cast<bool>(parent->trace_id), "no zero trace id");
  const auto again = parse_trace_id(to_string(parent->trace_id));
  require(again && *again == parent->trace_id, "an id reads back the same");
}

bool is_header_value(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return c >= 0x20 && c < 0x7f; });
}

/// First line: traceparent; the rest: tracestate. What comes in goes out again, in headers that split no request.
SPILLWAY_FUZZ_TARGET(tracestate) {
  const std::size_t split = std::min(bytes.find('\n'), bytes.size());
  const auto parent =
      parse_traceparent(bytes.substr(0, split), bytes.substr(std::min(split + 1, bytes.size())));
  if (!parent) return;
  const std::string_view state = parent->trace_state.view();
  require(static_cast<bool>(parent->trace_id) && parent->parent_id != 0, "no zero id");
  require(state.size() <= 512 && std::count(state.begin(), state.end(), ',') < 32,
          "what is carried is bounded");
  const Context context({.trace = *parent});
  const Scope scope(context);
  const OutgoingTrace out = current_trace_headers();
  for (const std::string* header : {&out.xray, &out.traceparent, &out.tracestate}) {
    require(is_header_value(*header), "a header is printable ASCII");
  }
  require(out.tracestate == state, "what was carried goes on");
  const auto again = parse_trace_headers({out.xray, out.traceparent, out.tracestate});
  require(again && again->trace_id == parent->trace_id && again->trace_state.view() == state,
          "what goes out reads back the same");
}

/// The first byte: what is planted, and whether there is a line before it and behind it.
SPILLWAY_FUZZ_TARGET(redaction) {
  static Redactor redactor(
      *parse_redaction_policy("cards,emails,tokens", "password,*token,!*next_token"));
  static constexpr std::pair<std::string_view, std::string_view> secrets[] = {
      {"4111 1111 1111 1111", "1111 1111"},
      {"ann.canary@example.com", "canary"},
      {"Authorization: Bearer canary-0123456789", "canary"},
      {"password=canary", "canary"},
      {R"({"password":"canary"})", "canary"},
      {"https://ann:canary@example.com/", "canary"}};
  const std::string once(redactor.text(bytes));
  require(!simdjson::validate_utf8(bytes.data(), bytes.size()) ||
              simdjson::validate_utf8(once.data(), once.size()),
          "UTF-8 stays UTF-8");
  require(once == bytes || once.find(Redactor::mark) != std::string::npos,
          "what is taken out is marked");

  Input input(bytes);
  const auto& [secret, canary] = secrets[input.up_to(std::size(secrets) - 1)];
  const std::string_view around = input.rest();
  if (around.find(canary) != std::string_view::npos) return;
  const std::size_t half = around.size() / 2;
  std::string planted(around.substr(0, half));
  planted.append("\n").append(secret).append("\n").append(around.substr(half));
  require(redactor.text(planted).find(canary) == std::string_view::npos,
          "a secret on a line of its own is taken out");
}

/// First line: the status. Then headers, an empty line, the body.
SPILLWAY_FUZZ_TARGET(aws_error) {
  transport::HttpResponse response;
  response.outcome = transport::HttpOutcome::answered;
  Input input(bytes);
  response.status = 100 + input.take<std::uint16_t>() % 500;
  std::string_view rest = input.rest();
  while (!rest.empty()) {
    const std::size_t end = std::min(rest.find('\n'), rest.size());
    const std::string_view line = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    if (line.empty()) break;
    const std::size_t colon = std::min(line.find(':'), line.size());
    response.headers.push_back({std::string(line.substr(0, colon)),
                                std::string(line.substr(std::min(colon + 1, line.size())))});
  }
  response.body = rest;
  const transport::AwsError error = transport::parse_aws_error(response);
  require(error.message.size() <= 500, "a message is bounded");
  const transport::Failure failure = transport::classify(response, error);
  require(
      (failure == transport::Failure::none) == (response.status >= 200 && response.status < 300),
      "2xx is no failure");
  if (const auto wait = transport::retry_after(response)) {
    require(wait->count() >= 0 && *wait <= std::chrono::hours(1), "a wait is bounded");
  }
}

/// Lines of NAME=VALUE, an empty line, then the JSON file.
SPILLWAY_FUZZ_TARGET(config) {
  const std::size_t split = std::min(bytes.find("\n\n"), bytes.size());
  static const int file = memfd_create("config.json", MFD_CLOEXEC);
  require(file >= 0 && ftruncate(file, 0) == 0, "there is a file to read");
  const std::string_view json = bytes.substr(std::min(split + 2, bytes.size()));
  require(pwrite(file, json.data(), json.size(), 0) == static_cast<ssize_t>(json.size()),
          "the file is written");

  std::vector<std::string> variables{"SPILLWAY_CONFIG_FILE=/proc/self/fd/" + std::to_string(file),
                                     "AWS_CONFIG_FILE=/nonexistent",
                                     "AWS_SHARED_CREDENTIALS_FILE=/nonexistent"};
  for (const std::string_view line : lines_of(bytes.substr(0, split))) {
    // A variable ends at its first NUL, and may name no file of this machine.
    const std::string_view variable = line.substr(0, line.find('\0'));
    if (variable.find("_FILE=") == std::string_view::npos) variables.emplace_back(variable);
  }
  std::vector<char*> pointers;
  for (std::string& variable : variables) pointers.push_back(variable.data());
  pointers.push_back(nullptr);
  char** const before = environ;
  environ = pointers.data();
  std::vector<ConfigError> errors;
  const Config config = resolve({}, errors);
  const std::vector<ConfigError> wrong = validate(config);
  errors.insert(errors.end(), wrong.begin(), wrong.end());
  for (const ConfigError& error : errors) {
    require(!error.key.empty() && !error.message.empty(), "an error says what and why");
  }
  require(!describe(config).empty(), "a configuration can be printed");
  if (wrong.empty()) {
    require(config.ring_bytes.get() > 0 && config.series_max.get() > 0 &&
                config.queue_bytes_max.get() > 0 && config.metric_interval.get().count() > 0,
            "a valid configuration has bounds");
  }
  environ = before;
}

SPILLWAY_FUZZ_TARGET(region) {
  if (!transport::is_region(bytes)) return;
  const std::string url = transport::service_endpoint(transport::xray, bytes);
  const auto parsed = transport::parse_url(url);
  require(parsed && parsed->scheme == "https", "a region makes an endpoint of https");
  require(parsed->host.find("xray") != std::string::npos, "of the service");
}

}  // namespace
}  // namespace spillway::fuzz
