// SPDX-License-Identifier: Apache-2.0
#include <spillway/middleware/client_address.hpp>
#include <spillway/middleware/resilience/settings.hpp>

namespace spillway::middleware {

ClientAddress::ClientAddress(const ClientAddressOptions& options) : header_(options.header) {
  SettingsCheck check("the client address");
  check.require(!header_.empty(), "header is empty");
  for (const std::string& text : options.trusted_proxies) {
    const auto network = IpNetwork::parse(text);
    check.require(network.has_value(), "trusted_proxies: \"" + text + "\" is no network");
    if (network) trusted_.push_back(*network);
  }
  check.done();
}

Verdict ClientAddress::before(State& state, Exchange& exchange) const noexcept {
  if (trusted_.empty()) return Verdict::proceed;
  const RequestView& request = exchange.request;
  std::array<std::string_view, forwarded_fields_max> fields;
  std::size_t count = 0;
  for (;; ++count) {
    const std::string_view field = request.headers.find(header_, count);
    if (field.data() == nullptr) break;
    if (count == fields.size()) return Verdict::proceed;
    fields[count] = field;
  }
  if (count == 0) return Verdict::proceed;
  const auto peer = IpAddress::parse(request.peer_address);
  if (!peer) return Verdict::proceed;
  const IpAddress client = client_address(*peer, std::span(fields.data(), count), trusted_);
  // What says nothing leaves the peer's text as it is, which tells Observability where it comes from.
  if (client != *peer) exchange.client_address = client.write(state.text_);
  return Verdict::proceed;
}

}  // namespace spillway::middleware
