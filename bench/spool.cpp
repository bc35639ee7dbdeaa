// SPDX-License-Identifier: Apache-2.0
//
// Questions: how many records a second go through the spool, onto the disk (each payload confirmed by
// it) and back; and how long does an engine take to open the backlog that another one left? Prints
// JSON rows.
//
//   spool DIRECTORY [--quick | --smoke]   on the file system in question
//
// Exit status 1: not everything came back.
#include <chrono>
#include <cstdio>
#include <memory>
#include <string>

#include "options.hpp"
#include "rows.hpp"
#include <spillway/engine/spool.hpp>
#include <spillway/engine/testing.hpp>

namespace {

using spillway::detail::Ledger;
using spillway::detail::Payload;
using spillway::detail::Signal;
using spillway::detail::Spool;

constexpr int records_per_payload = 4096;
constexpr std::size_t record_bytes = 256;

double seconds_of(auto&& work) {
  const auto began = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
}

struct Process {
  explicit Process(const std::string& directory)
      : spool({spillway::transport::system_disk(),
               spillway::detail::system_clock(),
               ledger,
               directory,
               "bench",
               {"", "put-log-events", ""},
               std::uint64_t{4} << 30,
               std::chrono::hours(1),
               [](std::string_view message) {
                 std::fprintf(stderr, "%.*s\n", static_cast<int>(message.size()), message.data());
               }}) {}
  Ledger ledger;
  Spool spool;
};

}  // namespace

int main(int argc, char** argv) {
  const bench::Options options(argc, argv);
  if (options.arguments.size() != 1) {
    std::fputs("usage: spool DIRECTORY [--quick | --smoke]\n", stderr);
    return 2;
  }
  const std::string directory(options.arguments[0]);
  Payload payload(std::pmr::get_default_resource());
  payload.signal = Signal::logs;
  for (int i = 0; i < records_per_payload; ++i) {
    const std::size_t offset = payload.bytes.size();
    std::string text = "{\"message\":\"order placed\",\"order_id\":" + std::to_string(i);
    text.resize(record_bytes - 1, ' ');
    payload.bytes.append(text + "}");
    payload.end_item(offset, 1, 1'795'222'800'000 + i, static_cast<std::uint64_t>(i));
  }
  // 1 GiB with the tables of items.
  const int payloads = options.times(
      static_cast<int>((std::uint64_t{1} << 30) / (records_per_payload * (record_bytes + 32))));
  const double records = static_cast<double>(payloads) * records_per_payload;
  const double bytes = records * record_bytes;

  double took_in = 0;
  bench::Row in{"spool", "spool_in"};
  {
    Process process(directory);
    process.spool.tend();
    bool stored = true;
    const double took = seconds_of([&] {
      for (int i = 0; i < payloads; ++i) stored &= process.spool.put(payload);
    });
    if (!stored) return 1;
    in.per_second = records / took;
    in.bytes_per_second = bytes / took;
    took_in = took;
  }
  bench::print(in);

  Process next(directory);
  bench::Row open{"spool", "spool_open"};
  const double open_ns = 1e9 * seconds_of([&] { next.spool.tend(); });
  open.ns = {open_ns, open_ns, open_ns, open_ns};
  open.bytes_per_second = bytes / (open_ns / 1e9);
  bench::print(open);

  double back = 0;
  bench::Row out{"spool", "spool_out"};
  const double took = seconds_of([&] {
    while (auto loaded = next.spool.take(Signal::logs)) {
      back += static_cast<double>(loaded->payload->records());
      next.spool.remove(loaded->entry);
    }
  });
  out.per_second = back / took;
  out.bytes_per_second = bytes / took;
  bench::print(out);
  bench::Row both{"spool", "spool_and_back"};
  both.per_second = back / (took_in + took);
  both.bytes_per_second = bytes / (took_in + took);
  bench::print(both);
  return back == records ? 0 : 1;
}
