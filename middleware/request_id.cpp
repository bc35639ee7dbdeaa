// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstdint>

#include <spillway/engine/span.hpp>
#include <spillway/middleware/request_id.hpp>
#include <spillway/middleware/resilience/settings.hpp>

namespace spillway::middleware {

namespace {

constexpr auto legal_in_id = [] {
  std::array<bool, 256> legal{};
  for (std::size_t c = '!'; c <= '~'; ++c) legal[c] = true;
  for (const char c : std::string_view("\"',;\\")) legal[static_cast<unsigned char>(c)] = false;
  return legal;
}();

}  // namespace

bool is_request_id(std::string_view text) noexcept {
  return !text.empty() && text.size() <= request_id_chars_max &&
         std::all_of(text.begin(), text.end(), [](unsigned char c) { return legal_in_id[c]; });
}

RequestId::RequestId(RequestIdOptions options) : options_(std::move(options)) {
  // RFC 9110, 5.6.2: a token.
  const auto in_name = [](unsigned char c) {
    return c > ' ' && c <= '~' &&
           std::string_view("\"(),/:;<=>?@[\\]{}").find(static_cast<char>(c)) ==
               std::string_view::npos;
  };
  SettingsCheck("request ids")
      .require(!options_.header.empty() &&
                   std::all_of(options_.header.begin(), options_.header.end(), in_name),
               "header \"" + options_.header + "\" is no name of a header")
      .done();
}

Verdict RequestId::before(State& state, Exchange& exchange) const {
  if (options_.accept) {
    const std::string_view given = exchange.request.header(options_.header);
    if (is_request_id(given)) exchange.request_id = given;
  }
  if (exchange.request_id.empty()) {
    constexpr std::string_view hex = "0123456789abcdef";
    const std::uint64_t words[2] = {spillway::detail::next_span_id(),
                                    spillway::detail::next_span_id()};
    for (std::size_t i = 0; i < state.made_.size(); ++i)
      state.made_[i] = hex[words[i / 16] >> (60 - i % 16 * 4) & 15U];
    exchange.request_id = {state.made_.data(), state.made_.size()};
  }
  if (options_.respond) exchange.add_header(options_.header, exchange.request_id);
  return Verdict::proceed;
}

}  // namespace spillway::middleware
