// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <exception>
#include <iostream>
#include <vector>

#include "spillway/command.hpp"

namespace spillway::cli {
namespace {

struct Command {
  std::string_view name;
  std::string_view summary;
  int (*run)(Arguments arguments);
};

constexpr std::array<Command, 3> commands{{
    {"decode", "print what a file of the spool holds, as JSON lines", run_decode},
    {"local", "receive metrics, logs and traces on this machine, as AWS would", run_local},
    {"recover", "ship what processes that were killed left in their crash_dir", run_recover},
}};

void print_help(std::ostream& output) {
  output << "usage: spillway <command> [options]\n\n";
  for (const Command& command : commands) {
    output << "  " << command.name << "\t" << command.summary << "\n";
  }
  output << "  help\tthis text; 'spillway <command> --help' says more\n"
         << "  --version\n";
}

int run(Arguments arguments) {
  if (arguments.empty()) {
    print_help(std::cerr);
    return exit_usage;
  }
  const std::string_view name = arguments.front();
  if (name == "help" || name == "--help" || name == "-h") {
    print_help(std::cout);
    return 0;
  }
  if (name == "--version") {
    std::cout << "spillway " SPILLWAY_VERSION "\n";
    return 0;
  }
  const auto* const command = std::find_if(commands.begin(), commands.end(),
                                           [&](const Command& c) { return c.name == name; });
  if (command != commands.end()) return command->run(arguments.subspan(1));
  std::cerr << "spillway: there is no command '" << name << "'\n\n";
  print_help(std::cerr);
  return exit_usage;
}

}  // namespace
}  // namespace spillway::cli

int main(int argc, char** argv) try {
  const std::vector<std::string_view> arguments(argv + std::min(argc, 1), argv + argc);
  return spillway::cli::run(arguments);
} catch (const std::exception& error) {
  std::cerr << "spillway: " << error.what() << "\n";
  return 1;
}
