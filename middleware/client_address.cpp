// SPDX-License-Identifier: Apache-2.0
#include <spillway/middleware/client_address.hpp>
#include <spillway/middleware/resilience/settings.hpp>

namespace spillway::middleware {

std::optional<IpAddress> forwarded_client(const RequestView& request, std::string_view name,
                                          std::span<const IpNetwork> trusted) noexcept {
  std::array<std::string_view, forwarded_fields_max> fields;
  std::size_t count = 0;
  for (std::size_t nth = 0;; ++nth) {
    const std::string_view field = request.headers.find(name, nth);
    if (field.data() == nullptr) break;
    if (nth == fields.size()) {
      count = 0;
      break;
    }
    fields[count++] = field;
  }
  return client_address(request.peer_address, std::span(fields.data(), count), trusted);
}

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
  const RequestView& request = exchange.request;
  if (trusted_.empty() || !request.headers.contains(header_)) return Verdict::proceed;
  const auto client = forwarded_client(request, header_, trusted_);
  // What says nothing leaves the peer's text as it is, which tells Observability where it comes from.
  if (client && client != IpAddress::parse(request.peer_address))
    exchange.client_address = client->write(state.text_);
  return Verdict::proceed;
}

}  // namespace spillway::middleware
