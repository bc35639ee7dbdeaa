// SPDX-License-Identifier: Apache-2.0
//
// A service, its engine, the network, AWS and the disk in one thread, driven by a seed: the same seed
// gives the same run. Nothing here knows the engine's code: what was recorded is compared with what AWS
// took and with what the account says of the rest.
//
// Looked at after every step:
//   conservation  recorded = delivered + dropped + held, for every signal
//   integrity     what AWS takes is what was recorded, byte by byte; events of a request by time
// and at the end, with the network and the disk well again:
//   liveness      nothing is held any more
//   completeness  whatever was recorded has arrived, or is in the account as dropped, or was in the
//                 memory of a process that was killed
//   no surplus    what arrived twice was under way when an answer was lost or a process was killed
#pragma once

#include <cstdint>
#include <string>

namespace spillway::simulation {

struct Outcome {
  std::string error;  ///< empty: all of the above held
  std::uint64_t steps = 0;
  std::uint64_t recorded = 0;  ///< logs, spans and measurements
  std::uint64_t requests = 0;  ///< that AWS saw
  std::uint64_t faults = 0;    ///< of the network, the disk and the clock
  std::uint64_t kills = 0;
};

Outcome run(std::uint64_t seed);

}  // namespace spillway::simulation
