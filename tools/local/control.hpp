// SPDX-License-Identifier: Apache-2.0
//
// The receiver's own pages under /_spillway/: what arrived, and which faults are in force. Not
// signed; reached over loopback only.
#pragma once

#include <string>

#include "local/faults.hpp"
#include "local/protocol.hpp"
#include "local/store.hpp"
#include <spillway/transport/http.hpp>

namespace spillway::local {

class Control {
 public:
  Control(Store& store, FaultBox& faults) : store_(store), faults_(faults) {}

  static bool is_for(const transport::HttpRequest& request);
  Reply answer(const transport::HttpRequest& request);

  std::string metrics_json() const;
  std::string logs_json() const;
  std::string traces_json() const;
  std::string statistics_json() const;
  std::string faults_json() const;

 private:
  struct Page;
  static const Page pages[];

  Reply metrics_page(const transport::HttpRequest& request);
  Reply logs_page(const transport::HttpRequest& request);
  Reply traces_page(const transport::HttpRequest& request);
  Reply statistics_page(const transport::HttpRequest& request);
  Reply list_faults(const transport::HttpRequest& request);
  Reply add_faults(const transport::HttpRequest& request);
  Reply clear_faults(const transport::HttpRequest& request);
  Reply reset(const transport::HttpRequest& request);

  Store& store_;
  FaultBox& faults_;
};

}  // namespace spillway::local
