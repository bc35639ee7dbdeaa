// SPDX-License-Identifier: Apache-2.0
//
// Route templates, compiled once. Metrics, operation names and limits use the template, never the
// raw path: a path is the client's to choose, and each would be a metric of its own.
//
//   const Routes routes{{"GET", "/orders/{id}"}, {"", "/files/{path...}"}};
//   routes.match("GET", "/orders/17").path_template          // "/orders/{id}"
//   routes.match("GET", "/../etc/passwd").path_template      // "(unmatched)"
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace spillway::middleware {

/// An entry of a table, by its address: the same request always gives the same one.
struct Route {
  std::string method;  ///< "GET"; "*": every one that has no entry of its own
  std::string path_template;
  std::string name;          ///< "GET /orders/{id}": what segments and metrics are named by
  std::uint32_t number = 0;  ///< its place in Routes::all(); 0: unmatched
};

/// One line of a table.
struct RouteSpec {
  std::string_view method;  ///< empty: every method
  std::string_view path_template;
};

/// An immutable table; thread-safe. Outlives every chain that uses it.
///
/// A template is a path whose segments are literals or `{name}`, which stands for one segment that
/// is not empty. A last segment `{name...}` stands for the rest of the path, empty or not. Paths are
/// compared as received: bytes, with case, nothing decoded; "/orders" and "/orders/" are two. Where
/// several templates fit, a literal goes before `{name}`, and that before `{name...}`, from the left.
/// A HEAD that has no entry goes by the one of GET.
class Routes {
 public:
  /// Throws std::invalid_argument, which says what is wrong with which line: a template without a
  /// slash in front, a brace out of place, an entry twice, more than routes_max.
  explicit Routes(std::span<const RouteSpec> specs);
  Routes(std::initializer_list<RouteSpec> specs)
      : Routes(std::span<const RouteSpec>(specs.begin(), specs.size())) {}
  Routes(const Routes&) = delete;
  Routes& operator=(const Routes&) = delete;

  static constexpr std::size_t routes_max = 10'000;

  /// The route of a request; unmatched() for a path or a method that is in no entry. No allocation;
  /// time by the length of the path and, at worst, the number of entries.
  const Route& match(std::string_view method, std::string_view path) const noexcept;
  const Route& unmatched() const noexcept { return routes_.front(); }
  /// All, unmatched() first: all()[route.number] is the route.
  std::span<const Route> all() const noexcept { return routes_; }

 private:
  // A tree of segments. A node's literal children stand together, sorted by text.
  struct Node {
    std::string literal;
    std::uint32_t first_child = 0;
    std::uint32_t child_count = 0;
    std::uint32_t parameter = 0;     // the node of {name}; 0: none
    std::vector<const Route*> here;  // by method, for a path that ends here
    std::vector<const Route*> rest;  // for {name...}
  };
  struct Draft;
  void compile(Draft& root);
  const Route* find(std::uint32_t node, std::string_view method, std::string_view rest,
                    bool at_end) const noexcept;

  std::vector<Route> routes_;
  std::vector<Node> nodes_;
};

}  // namespace spillway::middleware
