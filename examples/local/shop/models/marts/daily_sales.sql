{{ config(materialized='incremental', incremental_strategy='delete+insert', unique_key='daily_sales_id') }}

{#- Returns are taken back for 30 days, so a day is open that long: each run computes the open days anew and leaves the closed ones. -#}
{% set open_days = 30 %}

select
    cast(orders.ordered_on as varchar) || '/' || items.category as daily_sales_id,
    orders.ordered_on as sold_on,
    items.category,
    count(distinct case when items.is_sale then orders.order_id end) as orders,
    sum(items.sold_quantity) as sold_quantity,
    {{ euros('sum(items.net_amount)') }} as net_amount,
    {{ euros('sum(items.margin)') }} as margin
from {{ ref('orders') }} as orders
inner join {{ ref('int_order_items') }} as items on orders.order_id = items.order_id
{% if is_incremental() %}
where orders.ordered_on > (select coalesce(max(sold_on), date '1970-01-01') from {{ this }}) - {{ open_days }}
{% endif %}
group by orders.ordered_on, items.category
