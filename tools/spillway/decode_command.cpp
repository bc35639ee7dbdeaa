// SPDX-License-Identifier: Apache-2.0
//
// `spillway decode`: what a file of the spool holds, as JSON lines.
#include <cstdio>
#include <fstream>
#include <iostream>
#include <iterator>
#include <string>

#include "spillway/command.hpp"
#include <spillway/encoders/json.hpp>
#include <spillway/engine/spool_file.hpp>

namespace spillway::cli {
namespace {

constexpr std::string_view usage = R"(usage: spillway decode FILE...

Prints what files of a spool (spool_dir) hold, one JSON object a line for each record: its signal and
destination, whether it is intact, and its text, or its bytes in base64 where the destination takes
protobuf. Reads only. Exit status 1 when a file cannot be read or something of it is damaged.
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
    if (file.destination == "otlp") {
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
    std::ifstream input(std::string(name), std::ios::binary);
    const std::string bytes(std::istreambuf_iterator<char>(input), {});
    if (!input.is_open() || input.bad()) {
      std::cerr << "spillway decode: " << name << " cannot be read\n";
      good = false;
    } else if (const auto file = detail::read_spool_file(bytes)) {
      good &= print_spool_file(*file);
    } else {
      std::cerr << "spillway decode: " << name
                << " is no file of a spool, or its header or table is damaged\n";
      good = false;
    }
  }
  return good ? 0 : 1;
}

}  // namespace spillway::cli
