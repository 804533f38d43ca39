with sales as (
    select
        items.sku,
        sum(items.sold_quantity) as sold_quantity,
        sum(items.returned_quantity) as returned_quantity,
        {{ euros('sum(items.net_amount)') }} as net_amount,
        {{ euros('sum(items.margin)') }} as margin
    from {{ ref('int_order_items') }} as items
    inner join {{ ref('orders') }} as orders on items.order_id = orders.order_id
    group by items.sku
),

current_prices as (
    select
        sku,
        price,
        dbt_valid_from as priced_since
    from {{ ref('product_prices') }}
    where dbt_valid_to is null
)

select
    products.sku,
    products.product_name,
    products.category,
    products.is_sold,
    current_prices.price,
    current_prices.priced_since,
    coalesce(sales.sold_quantity, 0) as sold_quantity,
    coalesce(sales.returned_quantity, 0) as returned_quantity,
    coalesce(sales.net_amount, 0) as net_amount,
    coalesce(sales.margin, 0) as margin
from {{ ref('stg_products') }} as products
inner join current_prices on products.sku = current_prices.sku
left join sales on products.sku = sales.sku
