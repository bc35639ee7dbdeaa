// SPDX-License-Identifier: Apache-2.0
//
// Documents that come from disk or from services: sampling rules and targets, spooled payloads,
// credentials, answers of an OTLP receiver, signatures of other services.
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "target.hpp"
#include <spillway/encoders/otlp.hpp>
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
