// SPDX-License-Identifier: Apache-2.0
//
// Route templates: which request goes by which, and tables that cannot be.
#include <cstdint>
#include <map>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <support/seed.hpp>

#include <spillway/middleware/routes.hpp>

namespace spillway::middleware {
namespace {

std::string match(const Routes& routes, std::string_view method, std::string_view path) {
  return routes.match(method, path).name;
}

TEST(RoutesTest, AParameterIsOneSegmentThatIsNotEmpty) {
  const Routes routes{{"GET", "/orders/{id}"}};
  EXPECT_EQ(match(routes, "GET", "/orders/17"), "GET /orders/{id}");
  EXPECT_EQ(match(routes, "GET", "/orders/%2F..;x"), "GET /orders/{id}");
  for (const char* other : {"/orders", "/orders/", "/orders/17/", "/orders/17/items", "/Orders/17",
                            "orders/17", "", "/", "//orders/17", "/orders//17", "*"}) {
    EXPECT_EQ(match(routes, "GET", other), "(unmatched)") << other;
  }
}

TEST(RoutesTest, TheUnmatchedRouteIsAlwaysTheSame) {
  const Routes routes{{"GET", "/a"}};
  EXPECT_EQ(&routes.match("GET", "/b"), &routes.unmatched());
  EXPECT_EQ(&routes.match("BREW", "/a"), &routes.unmatched());
  EXPECT_EQ(routes.unmatched().number, 0U);
  EXPECT_EQ(routes.unmatched().path_template, "(unmatched)");
  EXPECT_EQ(match(Routes{}, "GET", "/"), "(unmatched)");
}

TEST(RoutesTest, NumbersAreThePlacesInTheTable) {
  const Routes routes{{"GET", "/a"}, {"POST", "/a"}, {"", "/b/{c}"}};
  ASSERT_EQ(routes.all().size(), 4U);
  for (std::size_t i = 0; i < routes.all().size(); ++i) EXPECT_EQ(routes.all()[i].number, i);
  EXPECT_EQ(&routes.match("POST", "/a"), &routes.all()[2]);
}

TEST(RoutesTest, LiteralsGoBeforeParametersAndThoseBeforeTheRest) {
  const Routes routes{{"GET", "/{a}/{b}"}, {"GET", "/{rest...}"}, {"GET", "/x/{b}"},
                      {"GET", "/x/y"},     {"GET", "/x/y/z"},     {"GET", "/{a}/q/z"}};
  EXPECT_EQ(match(routes, "GET", "/x/y"), "GET /x/y");
  EXPECT_EQ(match(routes, "GET", "/x/w"), "GET /x/{b}");
  EXPECT_EQ(match(routes, "GET", "/w/y"), "GET /{a}/{b}");
  EXPECT_EQ(match(routes, "GET", "/x/q/z"), "GET /{a}/q/z") << "goes back from /x";
  EXPECT_EQ(match(routes, "GET", "/x/y/w"), "GET /{rest...}");
  EXPECT_EQ(match(routes, "GET", "/"), "GET /{rest...}");
}

TEST(RoutesTest, TheRestMayBeEmptyButItsSlashIsThere) {
  const Routes routes{{"GET", "/files/{path...}"}};
  EXPECT_EQ(match(routes, "GET", "/files/"), "GET /files/{path...}");
  EXPECT_EQ(match(routes, "GET", "/files/a//b/"), "GET /files/{path...}");
  EXPECT_EQ(match(routes, "GET", "/files"), "(unmatched)");
}

TEST(RoutesTest, AnEntryForEveryMethodIsTheLastChoice) {
  const Routes routes{{"", "/a"}, {"GET", "/a"}, {"*", "/b"}};
  EXPECT_EQ(match(routes, "GET", "/a"), "GET /a");
  EXPECT_EQ(match(routes, "HEAD", "/a"), "GET /a");
  EXPECT_EQ(match(routes, "DELETE", "/a"), "/a");
  EXPECT_EQ(match(routes, "get", "/b"), "/b");
}

TEST(RoutesTest, AMethodThatIsMissingAtALiteralIsLookedForFurther) {
  const Routes routes{{"GET", "/orders/new"}, {"POST", "/orders/{id}"}};
  EXPECT_EQ(match(routes, "POST", "/orders/new"), "POST /orders/{id}");
}

TEST(RoutesTest, ASlashAtTheEndIsASegmentOfItsOwn) {
  const Routes routes{{"GET", "/a/"}, {"GET", "/"}};
  EXPECT_EQ(match(routes, "GET", "/a/"), "GET /a/");
  EXPECT_EQ(match(routes, "GET", "/a"), "(unmatched)");
  EXPECT_EQ(match(routes, "GET", "/"), "GET /");
}

TEST(RoutesTest, WhatCannotBeATemplateIsRefusedWithItsLine) {
  const auto error_of = [](std::vector<RouteSpec> specs) -> std::string {
    try {
      const Routes routes(specs);
      return "";
    } catch (const std::invalid_argument& error) {
      return error.what();
    }
  };
  EXPECT_EQ(error_of({{"GET", "orders"}}),
            R"(route "GET orders": the template does not begin with '/')");
  EXPECT_NE(error_of({{"GET", ""}}), "");
  for (const char* braces : {"/{a", "/a}", "/x{a}", "/{a}x", "/{}", "/{{a}}", "/{a}/{b"}) {
    EXPECT_NE(error_of({{"GET", braces}}).find("brace"), std::string::npos) << braces;
  }
  EXPECT_NE(error_of({{"GET", "/{a...}/b"}}).find("last"), std::string::npos);
  EXPECT_NE(error_of({{"GET", "/{a}"}, {"GET", "/{b}"}}).find("\"GET /{b}\""), std::string::npos);
  EXPECT_NE(error_of({{"", "/a"}, {"*", "/a"}}), "");
  EXPECT_EQ(error_of({{"GET", "/{a}"}, {"PUT", "/{b}"}}), "");
  EXPECT_NE(error_of(std::vector<RouteSpec>(Routes::routes_max + 1)), "");
}

// The rule of the header, written as a comparison of whole templates.
class Model {
 public:
  explicit Model(const Routes& routes) : routes_(routes) {}
  const Route& match(std::string_view method, std::string_view path) const {
    const Route* best = &routes_.unmatched();
    std::string best_rank;
    for (const Route& route : routes_.all().subspan(1)) {
      const std::string rank = rank_of(route, method, path);
      if (!rank.empty() && (best_rank.empty() || rank < best_rank)) {
        best = &route;
        best_rank = rank;
      }
    }
    return *best;
  }

 private:
  static std::vector<std::string> split(std::string_view path) {
    std::vector<std::string> segments(1);
    for (const char c : path.substr(1)) {
      if (c == '/') {
        segments.emplace_back();
      } else {
        segments.back() += c;
      }
    }
    return segments;
  }
  // A letter a segment: smaller is preferred; empty: it does not fit.
  static std::string rank_of(const Route& route, std::string_view method, std::string_view path) {
    const auto wanted = split(path);
    const auto parts = split(route.path_template);
    std::string rank;
    for (std::size_t i = 0;; ++i) {
      if (i == parts.size() || i == wanted.size()) {
        if (parts.size() != wanted.size()) return "";
        break;
      }
      if (parts[i].ends_with("...}")) {
        rank += 'c';
        break;
      }
      const bool parameter = parts[i].starts_with('{');
      if (parameter ? wanted[i].empty() : parts[i] != wanted[i]) return "";
      rank += parameter ? 'b' : 'a';
    }
    if (route.method != method && route.method != "*") return "";
    return rank + (route.method == "*" ? 'b' : 'a');
  }
  const Routes& routes_;
};

TEST(RoutesTest, AgreesWithAModelOnRandomTables) {
  const std::uint64_t seed = testing::seed_or(6);
  SCOPED_TRACE(testing::seed_note(seed));
  std::mt19937_64 random(seed);
  const auto pick = [&](std::vector<std::string> from) { return from[random() % from.size()]; };
  for (int table = 0; table < 200; ++table) {
    std::map<std::string, std::pair<std::string, std::string>> lines;  // by what they fit
    for (int line = 0; line < 12; ++line) {
      std::string text;
      std::string shape;
      for (std::size_t depth = random() % 3 + 1; depth > 0; --depth) {
        const std::string segment =
            pick(depth == 1 ? std::vector<std::string>{"a", "b", "", "{p}", "{rest...}"}
                            : std::vector<std::string>{"a", "b", "{p}"});
        text += "/" + segment;
      }
      const std::string method = pick({"GET", "PUT", "*"});
      lines[method + text] = {method, text};
    }
    std::vector<RouteSpec> specs;
    for (const auto& [key, line] : lines) specs.push_back({line.first, line.second});
    const Routes routes(specs);
    const Model model(routes);
    for (int i = 0; i < 100; ++i) {
      std::string path;
      for (std::size_t depth = random() % 4 + 1; depth > 0; --depth)
        path += "/" + pick({"a", "b", "c", ""});
      const std::string method = pick({"GET", "PUT", "DELETE"});
      EXPECT_EQ(match(routes, method, path), model.match(method, path).name) << method << path;
    }
  }
}

}  // namespace
}  // namespace spillway::middleware
