// SPDX-License-Identifier: Apache-2.0
//
// The shop on Boost.Beast, in the three ways of writing such a server.
//
//   spillway-example-beast sync|callbacks|coroutines
#include <iostream>
#include <string_view>

#include "../shop.hpp"
#include "callbacks.hpp"
#include "coroutines.hpp"
#include "sync.hpp"

int main(int argc, char** argv) {
  const std::string_view way = argc == 2 ? argv[1] : "";
  const auto serve = [](auto serve_shop) {
    examples::Shop shop;
    serve_shop(shop);
    shop.report();
    return 0;
  };
  if (way == "sync") return serve(examples::serve_sync);
  if (way == "callbacks") return serve(examples::serve_callbacks);
  if (way == "coroutines") {
#if defined(BOOST_ASIO_HAS_CO_AWAIT)
    return serve(examples::serve_coroutines);
#else
    std::cerr << "this compiler has no coroutines that this Boost knows\n";
    return 3;
#endif
  }
  std::cerr << "usage: spillway-example-beast sync|callbacks|coroutines\n";
  return 2;
}
