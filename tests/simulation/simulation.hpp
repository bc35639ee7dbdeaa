// SPDX-License-Identifier: Apache-2.0
//
// A service, its engine, the network, AWS and the disk in one thread, driven by a seed: the same seed
// gives the same run. Nothing here knows the engine's code: what was recorded is compared with what AWS
// took and with what the account says of the rest.
//
// Looked at after every step:
//   conservation  recorded = delivered + dropped + held, for every signal
//   integrity     what AWS takes is what was recorded, byte by byte, under the tenant that it was recorded for
//   order         events of a request by time; requests of a stream by their records, in a process whose disk is well
// at a shutdown:
//   bound         it returns in its time, whatever network and disk do, and nothing is held but on disk
// and at the end, with the network and the disk well again:
//   liveness      nothing is held any more
//   completeness  whatever was recorded has arrived, or is in the account as dropped, or was in the
//                 memory of a process that was killed
//   no surplus    what arrived twice was under way when an answer was lost or a process was killed
//
// That each of these can fail is shown by a Sabotage: something between engine and AWS, or in the books, that goes wrong
// as a broken engine would.
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
  std::uint64_t shutdowns = 0;
  std::uint64_t refusals = 0;   ///< of single records by AWS
  std::uint64_t recovered = 0;  ///< out of the rings of killed processes
};

enum class Sabotage : std::uint8_t {
  none,
  loses_request,    ///< AWS does not get it, the engine is told that it did
  repeats_request,  ///< AWS gets it twice
  alters_record,
  moves_tenant,    ///< a record comes under another tenant's name
  swaps_events,    ///< within a request
  swaps_requests,  ///< of a stream
  invents_record,
  stalls,        ///< nothing is taken any more
  miscounts,     ///< a call that is not in the account
  slow_shutdown  ///< each sync of the disk takes a second, which the engine cannot see
};

Outcome run(std::uint64_t seed, Sabotage sabotage = Sabotage::none);

}  // namespace spillway::simulation
